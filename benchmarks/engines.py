"""The engines that keep Sked's state, each as a fresh, private server (or file) in a folder that goes afterwards.

They run as the tests' rigs start them: Consul as one server and etcd as one member, both with their data on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psutil
from bed import ROOT

from sked_core.interfaces.store import Store
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

sys.path.append(str(ROOT / "tests"))
from rigs.consul import PrivateConsul
from rigs.etcd import PrivateEtcd, call
from rigs.local import Server, ask

NAMES = ("embedded", "consul", "etcd")


class Engine(Protocol):
    """``url``: for Sked. ``address``: host and port, or the file's path."""

    name: str
    url: str
    address: str

    def writes(self) -> int:
        """The engine's own count of what was written: only its growth says anything."""
        ...

    def cpu(self) -> float:
        """Seconds of processor time that the engine's process has used; 0 where it has none."""
        ...


class ServerEngine:
    """An engine that is a server process."""

    def __init__(self, name: str, server: Server, url: str) -> None:
        try:
            server.start()
        except BaseException:
            server.kill()
            raise
        self.name, self.url, self.address = name, url, url.partition("://")[2]
        self._server = server
        self._process = next(
            one for one in psutil.Process().children() if str(server.folder) in " ".join(one.cmdline())
        )

    def writes(self) -> int:
        """Entries of the Raft log (Consul), or revisions (etcd): one for each transaction that wrote."""
        if self.name == "etcd":
            return int(call(f"http://{self.address}", "maintenance/status")["header"]["revision"])
        said = json.loads(ask(f"http://{self.address}/v1/agent/self") or b"")
        return int(said["Stats"]["raft"]["applied_index"])

    def cpu(self) -> float:
        spent = self._process.cpu_times()
        return float(spent.user + spent.system)

    def memory(self) -> int:
        """Bytes of memory that the engine's process holds (RSS)."""
        return int(self._process.memory_info().rss)

    def disk(self) -> int:
        """Bytes of its data folder."""
        return sum(one.stat().st_blocks * 512 for one in self._server.data.rglob("*") if one.is_file())

    def close(self) -> None:
        self._server.kill()


class FileEngine:
    """The embedded store: SQLite works in the processes that use it."""

    def __init__(self, folder: Path) -> None:
        self.name = "embedded"
        self.address = str(folder / "sked.db")
        self.url = f"sqlite://{self.address}"

    def writes(self) -> int:
        """Revisions: one for each transaction that put something, and one for each key that was deleted."""
        store = open_store(self.url, Plugins([]))
        try:
            return int(store.read("meta/none").revision)
        finally:
            store.close()

    def cpu(self) -> float:
        return 0.0

    def close(self) -> None:
        return None


def program(name: str) -> str:
    """The path of ``consul`` or ``etcd``: the one of ``scripts/services``, or one on PATH."""
    noted = ROOT / ".services" / "env"
    lines = noted.read_text().splitlines() if noted.exists() else []
    known = dict(line.split("=", 1) for line in lines) | dict(os.environ)
    found = shutil.which(known.get(f"{name.upper()}_BIN", name))
    if found is None:
        raise SystemExit(f"there is no {name} program: run scripts/services start, or put one on PATH")
    return found


@contextlib.contextmanager
def fresh(name: str) -> Iterator[Engine]:
    """An empty engine: ``embedded``, ``consul`` or ``etcd``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, no server is left behind
    with tempfile.TemporaryDirectory(prefix="sked-bench-") as made:
        folder = Path(made)
        engine: ServerEngine | FileEngine
        if name == "embedded":
            engine = FileEngine(folder)
        elif name == "consul":
            # Its own book-keeping would count as writes.
            consul = PrivateConsul(program("consul"), folder, {"disable_coordinates": True})
            engine = ServerEngine(name, consul, consul.url)
        else:
            etcd = PrivateEtcd(program("etcd"), folder, {})
            engine = ServerEngine(name, etcd, etcd.url)
        try:
            yield engine
        finally:
            engine.close()


@contextlib.contextmanager
def store_of(engine: Engine) -> Iterator[Store]:
    """A client as Sked's processes use it."""
    store = open_store(engine.url, Plugins.load())
    try:
        yield store
    finally:
        store.close()
