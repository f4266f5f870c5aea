"""The pages of the docs that are typed, and the machines that each of them is typed on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

from rigs.local import start_time
from rigs.needs import services_env
from rigs.network import Namespaces, Place
from rigs.typist import Typist
from rigs.wheels import PACKAGES, UNCOMPILED, gather, only

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Machines: TypeAlias = Callable[..., AbstractContextManager[Typist]]


@contextlib.contextmanager
def _typist(env: Mapping[str, str]) -> Iterator[Typist]:
    """One in a folder of its own, with nothing of this process's environment."""
    with tempfile.TemporaryDirectory(prefix="sked-typed-") as folder:
        typist = Typist(Path(folder), {"PATH": SYSTEM, "LANG": "C.UTF-8", **env})
        try:
            yield typist
        finally:
            typist.end()


def installed() -> AbstractContextManager[Typist]:
    """This machine, with Sked as the tests have it."""
    return _typist({"PATH": f"{Path(sys.executable).parent}:{SYSTEM}"})


@contextlib.contextmanager
def clean(house: Path | None = None) -> Iterator[Typist]:
    """A machine with Python and nothing else, where pip finds our packages and what they need: in ``house``, or built
    just now."""
    with tempfile.TemporaryDirectory(prefix="sked-wheels-") as folder:
        if house is None:
            house = Path(folder)
            gather(house, *PACKAGES)
        with _typist(only(house) | UNCOMPILED) as typist:
            yield typist


SCP = """\
#!/bin/sh
# Stands in for ssh between the hosts of a page: copies into the folder that a host has for its /etc or its home.
eval "target=\\${$#}"
[ "$1" = -q ] && shift
host=${target%%:*} path=${target#*:}
case $path in /*) path=HOSTS/$host$path ;; *) path=HOME/$host/$path ;; esac
mkdir -p "$(dirname "$path")" && exec cp "$1" "$path"
"""


@contextlib.contextmanager
def five_hosts() -> Iterator[Typist]:
    """Five machines, ``web-1`` (10.0.0.1) to ``web-5``: network namespaces, each with a name, an ``/etc`` and a
    ``/var/lib`` of its own. Sked and Consul are installed on all of them, and ``scp`` goes from one to another."""
    names = [f"web-{number}" for number in range(1, 6)]
    places = Namespaces(f"t{os.getpid()}x{start_time(os.getpid())}p", len(names))
    env = {"PATH": f"{Path(sys.executable).parent}:{Path(consul()).parent}:{SYSTEM}"}
    with _typist(env) as typist:
        try:
            places.build()
            hosts = typist.folder / "hosts"
            typist.hosts = {
                name: _machine(hosts / name, name, f"10.0.0.{number}", place)
                for number, (name, place) in enumerate(zip(names, places.places, strict=True), 1)
            }
            scp = typist.folder / "bin" / "scp"
            scp.parent.mkdir()
            scp.write_text(SCP.replace("HOSTS", str(hosts)).replace("HOME", str(typist.home)))
            scp.chmod(0o755)
            typist.env = {"PATH": f"{scp.parent}:{env['PATH']}", "LANG": "C.UTF-8"}
            yield typist
        finally:
            typist.end()
            places.remove()


def _machine(folder: Path, name: str, address: str, place: Place) -> Sequence[str]:
    """Makes a namespace a machine; returns what goes before its commands."""
    space = place.within[-1]
    for command in (f"addr add {address}/24 dev eth0", f"addr del {place.address}/24 dev eth0"):
        subprocess.run(["ip", "-n", space, *command.split()], check=True, timeout=30)
    route = "route add default via 10.0.0.254"
    subprocess.run(["ip", "-n", space, *route.split()], check=True, timeout=30)
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    (folder / "var" / "lib").mkdir(parents=True)
    mounts = f"mount --bind {folder}/etc /etc && mount --bind {folder}/var/lib /var/lib"
    script = f'hostname {name} && {mounts} && exec "$@"'
    return [*place.within, "unshare", "--mount", "--uts", "sh", "-c", script, "sh"]


def consul() -> str:
    """The path of the Consul that the tests use."""
    return services_env().get("CONSUL_BIN") or shutil.which("consul") or "consul"


SESSIONS: Mapping[str, tuple[Sequence[str], Machines]] = {
    "tutorial": (("docs/tutorial.md",), clean),
    "five-hosts": (("docs/five-hosts.md",), five_hosts),
    "placement": (("docs/what-if.md", "docs/explaining.md"), installed),
}
"""By name: the pages, which are typed one after the other, and what makes their machines."""
