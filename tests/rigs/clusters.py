"""Clusters as people run them: three Consul servers with client agents on the hosts, or three etcd members.

Each server and each host is a network namespace where this machine allows that, else an address of the loopback
interface (see ``rigs.network``). ``scripts/services cluster`` is the same for people. A cluster's folder holds the
notes by which ``down`` finds its processes, also from another process than the one that started them.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rigs.consul import ConsulAgent
from rigs.etcd import EtcdMember, call
from rigs.local import Server, ask, end_noted
from rigs.network import Place, network

Member: TypeAlias = ConsulAgent | EtcdMember
MEMBERS, HOSTS = 3, 2
PATIENCE = 60.0
"""Seconds until a cluster that neither comes up nor elects is given up: a bound for hangs."""


@dataclass(frozen=True, slots=True)
class Host:
    """A place for an agent of Sked, and the URL of the store as seen from there."""

    place: Place
    url: str


class Cluster:
    """Three ``members``, and two ``hosts`` beside them. Faults stay until ``mend``.

    ``url`` reaches the store from this machine, whichever single member is down. ``name`` is unique on this machine.
    """

    members: Sequence[Member]
    hosts: Sequence[Host]
    url: str

    def __init__(self, name: str, folder: Path, binary: str) -> None:
        self._folder, self._binary = folder / name, binary
        self._network = network(name, MEMBERS + HOSTS)
        self._others: list[Server] = []

    def up(self) -> None:
        """Start it, empty, and return once every member takes writes. What is left of an earlier one goes first."""
        self.down()
        self._folder.mkdir(parents=True)
        self._network.build()
        self._seat(self._network.places[:MEMBERS], self._network.places[MEMBERS:])
        self.mend()

    def down(self) -> None:
        """End its processes, remove its namespaces and its folder. Nothing to do for what is not there."""
        for server in self._servers():
            server.kill()
        for note in self._folder.glob("*/pid"):
            end_noted(note)
        self._network.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    def mend(self) -> None:
        """Undo every fault: heal, resume and start what needs it, and wait until all take writes."""
        for place in self._network.places if self.splits else ():
            self._network.heal(place)
        for server in self._servers():
            if server.runs():
                server.resume()
            server.launch()
        for server in self._servers():
            server.await_ready(PATIENCE)

    @property
    def splits(self) -> bool:
        """Whether places can be cut off."""
        return self._network.splits

    def place(self, member: Member) -> Place:
        return self._network.places[self.members.index(member)]

    def cut(self, place: Place) -> None:
        """Drop every packet between a place and all others."""
        self._network.cut(place)

    def heal(self, place: Place) -> None:
        self._network.heal(place)

    def leader(self) -> Member:
        """The member that leads in its own eyes and those of most; waits for an election that is under way."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            seen = self._leaders_seen()
            for member, leader in zip(self.members, seen, strict=True):
                if member is leader and 2 * seen.count(member) > len(self.members):
                    return member
            time.sleep(0.2)
        raise AssertionError("no leader was elected")

    def followers(self) -> list[Member]:
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    def wipe(self) -> None:
        """All members lose their data and come back empty."""
        for member in self.members:
            member.wipe()
        self.mend()

    def save(self, target: Path) -> None:
        """A snapshot of the whole store, by the engine's own means."""
        raise NotImplementedError

    def restore(self, source: Path) -> None:
        """Put the store back to a snapshot, by the engine's own means; returns once it takes writes."""
        raise NotImplementedError

    def end_lease(self, key: str) -> None:
        """Destroy the session, or revoke the lease, that holds this key, as an operator may."""
        raise NotImplementedError

    def _seat(self, members: Sequence[Place], hosts: Sequence[Place]) -> None:
        raise NotImplementedError

    def _leaders_seen(self) -> list[Member | None]:
        """Who leads in the eyes of each member; None for who does not answer, or knows of no leader."""
        raise NotImplementedError

    def _servers(self) -> list[Server]:
        return [*getattr(self, "members", ()), *self._others]


class ConsulCluster(Cluster):
    """Three servers, and a client agent on each host, which Sked there talks to."""

    def _seat(self, members: Sequence[Place], hosts: Sequence[Place]) -> None:
        everybody = [place.address for place in (*members, *hosts)]
        agents = []
        for number, place in enumerate((*members, *hosts), 1):
            server = {"server": True, "bootstrap_expect": MEMBERS} if place in members else {"server": False}
            config = {
                **server,
                "node_name": f"{'server' if place in members else 'client'}-{number}",
                "bind_addr": place.address,
                "client_addr": " ".join(sorted({place.address, place.loopback})),
                "retry_join": everybody,
                "retry_interval": "1s",
                "ports": {"serf_wan": -1, "dns": -1, "grpc": -1},
                # A dead server stays one of three: it will come back.
                "autopilot": {"cleanup_dead_servers": False},
            }
            address = f"{place.address}:8500"
            folder = self._folder / f"consul-{number}"
            agents.append(ConsulAgent(self._binary, folder, config, address=address, within=place.within))
        self.members, self._others = agents[:MEMBERS], list(agents[MEMBERS:])
        self.hosts = [Host(place, f"consul://{place.loopback}:8500") for place in hosts]
        self.url = agents[-1].url

    def heal(self, place: Place) -> None:
        """Consul looks for members that it has given up every half minute only, so tell it."""
        super().heal(place)
        for other in self._network.places:
            ask(f"http://{place.address}:8500/v1/agent/join/{other.address}", method="PUT")

    def save(self, target: Path) -> None:
        target.write_bytes(_got(ask(f"{self.leader().http}/v1/snapshot", timeout=30)))

    def restore(self, source: Path) -> None:
        _got(ask(f"{self.leader().http}/v1/snapshot", body=source.read_bytes(), method="PUT", timeout=30))
        self.mend()

    def end_lease(self, key: str) -> None:
        http = self.leader().http
        (found,) = json.loads(_got(ask(f"{http}/v1/kv/{key}")))
        _got(ask(f"{http}/v1/session/destroy/{found['Session']}", method="PUT"))

    def _leaders_seen(self) -> list[Member | None]:
        asked = [ask(f"{member.http}/v1/status/leader", timeout=1) for member in self.members]
        by_address = {self.place(member).address: member for member in self.members}
        return [by_address.get(json.loads(answer or b'""').partition(":")[0]) for answer in asked]


class EtcdCluster(Cluster):
    """Three members; the hosts know all of them."""

    def _seat(self, members: Sequence[Place], hosts: Sequence[Place]) -> None:
        peers = {f"member-{number}": f"{place.address}:2380" for number, place in enumerate(members, 1)}
        self.members = [
            EtcdMember(
                self._binary,
                self._folder / name,
                name=name,
                client=f"{place.address}:2379",
                peers=peers,
                within=place.within,
            )
            for name, place in zip(peers, members, strict=True)
        ]
        self.url = "etcd://" + ",".join(f"{place.address}:2379" for place in members)
        self.hosts = [Host(place, self.url) for place in hosts]

    def save(self, target: Path) -> None:
        _etcd(self.members[0]).save(target)

    def restore(self, source: Path) -> None:
        for member in self.members:
            member.kill()
        for member in self.members:
            _etcd(member).restore(source)
        self.mend()

    def end_lease(self, key: str) -> None:
        http = self.members[0].http
        (found,) = call(http, "kv/range", key=base64.b64encode(key.encode()).decode())["kvs"]
        assert call(http, "lease/revoke", ID=found["lease"]), "the lease was not revoked"

    def _leaders_seen(self) -> list[Member | None]:
        asked = [call(member.http, "maintenance/status", timeout=1) for member in self.members]
        by_id = {
            answer["header"]["member_id"]: each for each, answer in zip(self.members, asked, strict=True) if answer
        }
        return [by_id.get(answer.get("leader", "")) for answer in asked]


def _etcd(member: Member) -> EtcdMember:
    assert isinstance(member, EtcdMember)
    return member


KINDS: Mapping[str, Callable[[str, Path, str], Cluster]] = {"consul": ConsulCluster, "etcd": EtcdCluster}


def _got(answer: bytes | None) -> bytes:
    assert answer is not None, "the server refused, or did not answer"
    return answer


def main() -> None:
    """``up`` and ``down`` for people: see scripts/services."""
    parser = argparse.ArgumentParser(prog="scripts/services cluster")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("name")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--binary", required=True)
    given = parser.parse_args()
    if not re.fullmatch("[a-z0-9]{1,20}", given.name):
        parser.error("a name has 1 to 20 of a-z and 0-9")
    cluster = KINDS[given.kind](given.name, given.folder, given.binary)
    if given.action == "down":
        cluster.down()
        return
    cluster.up()
    print(f"SKED_BACKEND={cluster.url}")
    for place in (*map(cluster.place, cluster.members), *(host.place for host in cluster.hosts)):
        print(f"# {place.address}: {' '.join((*place.within, 'COMMAND')) if place.within else 'no namespace'}")
    for host in cluster.hosts:
        print(f"# a host at {host.place.address}: sked run agent --backend {host.url}")


if __name__ == "__main__":
    main()
