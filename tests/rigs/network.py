"""Places for the processes of a cluster, each with an address of its own; as network namespaces where root allows it.

Namespaces are joined by a bridge that lives in one of them, the hub, so that no firewall of this machine has a say
(Docker's drops what crosses a bridge). A pair of virtual interfaces leads from this machine into the hub.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SUBNETS = "198.18.{number}"
"""A range set aside for tests of networks (RFC 2544), which nobody else routes."""
OURSELVES = 254
"""The last byte of this machine's address in a subnet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes run: ``address`` is reached from everywhere, ``loopback`` from the place itself, and ``within``
    goes before a command that is to run there."""

    address: str
    loopback: str
    within: tuple[str, ...] = ()


class Network(Protocol):
    """Places that reach one another and are reached from here. ``build`` first removes what it left earlier."""

    places: Sequence[Place]
    splits: bool
    """Whether ``cut`` works."""

    def build(self) -> None: ...
    def cut(self, place: Place) -> None:
        """Drop every packet between this place and all others, silently, as a broken switch does."""

    def heal(self, place: Place) -> None: ...
    def remove(self) -> None:
        """Nothing to do for what is not there."""


def network(name: str, count: int) -> Network:
    """Namespaces if this machine can have them, else addresses of the loopback interface."""
    return Loopback(name, count) if why_no_namespaces() else Namespaces(name, count)


def why_no_namespaces() -> str:
    """Empty if this machine can have network namespaces; else the reason."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            return f"there is no {program} program: run scripts/services start"
    probe = f"sked-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, timeout=30)
    if made.returncode == 0:
        within = ("ip", "netns", "exec", probe)
        made = subprocess.run([*within, "iptables", "-S"], capture_output=True, text=True, timeout=30)
        _run("ip", "netns", "del", probe)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""


class Loopback:
    """Addresses in 127.0.0.0/8, which need no set-up and can't be cut off. ``name`` chooses them."""

    splits = False

    def __init__(self, name: str, count: int) -> None:
        high, low = hashlib.sha256(name.encode()).digest()[:2]
        addresses = [f"127.{high % 254 + 1}.{low}.{number}" for number in range(1, count + 1)]
        self.places: Sequence[Place] = [Place(address, address) for address in addresses]

    def build(self) -> None:
        """Nothing to do: the whole block is there."""

    def remove(self) -> None:
        """Nothing to do, either."""

    def cut(self, place: Place) -> None:
        raise NotImplementedError(f"{place.address} can't be cut off: it is not a namespace")

    heal = cut


class Namespaces:
    """Namespaces ``sked-<name>-1`` and on, and ``sked-<name>-hub``; two of the same name can't be at once."""

    splits = True

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self.places: Sequence[Place] = []

    def build(self) -> None:
        self.remove()
        hub = f"sked-{self._name}-hub"
        names = [f"sked-{self._name}-{number}" for number in range(1, self._count + 1)]
        _run("ip", "netns", "add", hub)
        _in(hub, "link add bridge type bridge", "link set bridge up")
        with _turn():
            subnet, link = _free_subnet()
            _run(*f"ip link add {link} type veth peer name outside netns {hub}".split())
            _run(*f"ip addr add {subnet}.{OURSELVES}/24 dev {link}".split())
            _run(*f"ip link set {link} up".split())
        _in(hub, "link set outside master bridge up")
        for number, name in enumerate(names, 1):
            _run("ip", "netns", "add", name)
            _in(hub, f"link add to-{number} type veth peer name eth0 netns {name}")
            _in(hub, f"link set to-{number} master bridge up")
            _in(name, f"addr add {subnet}.{number}/24 dev eth0", "link set eth0 up", "link set lo up")
        self.places = [
            Place(f"{subnet}.{number}", "127.0.0.1", ("ip", "netns", "exec", name))
            for number, name in enumerate(names, 1)
        ]

    def cut(self, place: Place) -> None:
        self.heal(place)
        for rule in ("-A INPUT ! -i lo -j DROP", "-A OUTPUT ! -o lo -j DROP"):
            _run(*place.within, "iptables", "-w", *rule.split())

    def heal(self, place: Place) -> None:
        _run(*place.within, "iptables", "-w", "-F")

    def remove(self) -> None:
        """The interfaces go with their namespaces, in a moment even if processes still run in those."""
        ours = re.compile(rf"sked-{re.escape(self._name)}-(hub|\d+)")
        with _turn():
            for name in (line.split()[0] for line in _run("ip", "netns", "list").splitlines()):
                if name == f"sked-{self._name}-hub":
                    # At once, not when the kernel comes round to it: the subnet is free for others then.
                    gone = subprocess.run(
                        ["ip", "-n", name, "link", "del", "outside"], capture_output=True, text=True, timeout=30
                    )
                    assert gone.returncode == 0 or "Cannot find" in gone.stderr, gone.stderr
                if ours.fullmatch(name):
                    _run("ip", "netns", "del", name)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One process of this machine at a time: what was looked at stays so until it was acted on."""
    with Path("/run/sked-networks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_subnet() -> tuple[str, str]:
    """The first subnet without an address here, and a name for the interface to it."""
    taken = _run("ip", "-o", "-4", "addr")
    for number in range(256):
        subnet = SUBNETS.format(number=number)
        if f" {subnet}." not in taken:
            return subnet, f"sked-{number}"
    raise AssertionError("256 clusters are up on this machine: take one down")


def _in(namespace: str, *commands: str) -> None:
    for command in commands:
        _run("ip", "-n", namespace, *command.split())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
