"""Clients of etcd, and servers that ``private_etcd`` has no form for: with TLS, with users, several of one cluster."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rigs.clients import opening
from rigs.local import Server, free_ports
from sked_etcd.store import EtcdStore


class LocalEtcd(Server):
    """One member. It is ready once it accepts connections: whether it answers is for the test to find out.

    ``peers``: the peer addresses of all members of its cluster, of which it is number ``number``.
    """

    def __init__(
        self, program: str, folder: Path, *, peers: Sequence[str], number: int, scheme: str, **flags: object
    ) -> None:
        port = free_ports(1)[0]
        client, peer = f"{scheme}://127.0.0.1:{port}", f"http://{peers[number]}"
        self.address = f"127.0.0.1:{port}"
        self.url = f"etcd://{self.address}"
        command = [
            *(program, "--name", f"m{number}", "--data-dir", str(folder / "data"), "--logger", "zap"),
            *("--listen-client-urls", client, "--advertise-client-urls", client, "--log-level", "warn"),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", ",".join(f"m{each}=http://{address}" for each, address in enumerate(peers))),
            *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()),
        ]
        super().__init__(f"etcd at {self.address}", command, folder, lambda: accepts(port))


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def open_store() -> Iterator[Callable[[str], EtcdStore]]:
    """Opens clients of the etcd at a URL."""
    with opening(EtcdStore) as open_one:
        yield open_one


@pytest.fixture
def local_etcd(etcd_binary: str, tmp_path: Path) -> Iterator[Callable[..., list[LocalEtcd]]]:
    """A factory of clusters: ``local_etcd(3)``. Further arguments: ``scheme`` and etcd's own flags."""
    started: list[LocalEtcd] = []

    def start(count: int = 1, *, scheme: str = "http", **flags: object) -> list[LocalEtcd]:
        peers = [f"127.0.0.1:{port}" for port in free_ports(count)]
        members = []
        for number in range(count):
            folder = tmp_path / f"local-etcd-{len(started)}"
            members.append(LocalEtcd(etcd_binary, folder, peers=peers, number=number, scheme=scheme, **flags))
            started.append(members[-1])
        with ThreadPoolExecutor(count) as pool:  # none of them serves clients before it sees a leader
            list(pool.map(LocalEtcd.start, members))
        return members

    yield start
    for member in started:
        member.kill()
