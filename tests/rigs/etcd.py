"""An etcd of a test's own."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rigs.local import Server, ask, free_ports


def call(http: str, method: str, timeout: float = 5, **fields: object) -> dict[str, Any]:
    """One call of etcd's JSON gateway, e.g. ``call(http, "kv/compaction", revision="7")``; {} for no good answer."""
    answer = ask(f"{http}/v3/{method}", body=json.dumps(fields).encode(), timeout=timeout)
    found: dict[str, Any] = json.loads(answer or b"{}")
    return found


def takes_writes(http: str) -> bool:
    """Whether it answers a put: that needs a leader and a quorum."""
    key = base64.b64encode(b"sked-test-probe").decode()
    return bool(call(http, "kv/put", 2, key=key, value="")) and bool(call(http, "kv/deleterange", 2, key=key))


class EtcdMember(Server):
    """One member of a cluster, maybe the only one.

    ``client`` and ``peer`` are its addresses (host:port), ``peers`` those of all members by name; ``flags`` are
    etcd's own, with ``_`` or ``-``. ``http`` is where curl and etcdctl reach it, ``url`` where Sked does. ``within``
    goes before the command.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        name: str,
        client: str,
        peers: Mapping[str, str],
        flags: Mapping[str, object] | None = None,
        within: tuple[str, ...] = (),
    ) -> None:
        self.http, self.url = f"http://{client}", f"etcd://{client}"
        self._ctl = str(Path(binary).with_name("etcdctl"))
        cluster = ",".join(f"{each}=http://{address}" for each, address in peers.items())
        self._identity = [
            *("--name", name, "--data-dir", str(folder / "data")),
            *("--initial-advertise-peer-urls", f"http://{peers[name]}", "--initial-cluster", cluster),
        ]
        command = [
            *(*within, binary, *self._identity, "--logger", "zap", "--log-level", "warn"),
            *("--listen-client-urls", self.http, "--advertise-client-urls", self.http),
            *("--listen-peer-urls", f"http://{peers[name]}"),
            *(f"--{flag.replace('_', '-')}={value}" for flag, value in (flags or {}).items()),
        ]
        super().__init__(f"etcd at {self.http}", command, folder, lambda: takes_writes(self.http))

    def compact(self) -> None:
        """Drop all history: only the newest revision can be read and watched from then on."""
        status = call(self.http, "maintenance/status")
        call(self.http, "kv/compaction", revision=status["header"]["revision"], physical=True)

    def save(self, target: Path) -> None:
        """A snapshot of all that it holds, into a file that is not there yet."""
        self._etcdctl("snapshot", "save", str(target), "--endpoints", self.http)

    def restore(self, source: Path) -> None:
        """Kill it and put a snapshot in place of its data. It goes on from there after the next start, together with
        all others of its cluster, which have to be restored from the same snapshot."""
        self.wipe()
        self._etcdctl("snapshot", "restore", str(source), *self._identity)

    def _etcdctl(self, *arguments: str) -> None:
        env = {"ETCDCTL_API": "3"}
        done = subprocess.run([self._ctl, *arguments], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


class PrivateEtcd(EtcdMember):
    """An etcd server with a data folder of its own, which a test may pause, kill, wipe, compact and start again."""

    def __init__(self, binary: str, folder: Path, flags: Mapping[str, object]) -> None:
        client, peer = (f"127.0.0.1:{port}" for port in free_ports(2))
        super().__init__(binary, folder, name="sked-test", client=client, peers={"sked-test": peer}, flags=flags)
