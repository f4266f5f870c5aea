"""Stores of a run's own, which may be killed, paused and started again with their data, and asked what they saw."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from history.recorder import PREFIX, digest
from history.records import Event
from rigs.consul import PrivateConsul
from rigs.etcd import PrivateEtcd, call
from rigs.local import Server, ask
from sked_core.runtime.stores.sqlite_file import open_database

ROOT = Path(__file__).resolve().parents[2]
PROBES = "sked-test-probe"
"""What rigs write to see whether a server takes writes."""


class Engine(Protocol):
    """``url`` is for Sked, ``version`` what the engine calls itself, ``server`` what can be killed and paused: None
    where there is no such process."""

    url: str
    version: str
    server: Server | None

    def start(self) -> None:
        """Start it, and return once it takes writes."""
        ...

    def end(self) -> None:
        """Kill what runs of it."""
        ...

    def leases(self) -> int:
        """How many leases it holds, in its own words. Raises OSError while it does not answer."""
        ...

    def events(self) -> list[Event] | None:
        """Its own complete history; None if it keeps none."""
        ...


class Consul:
    """One Consul server."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.server: Server | None
        self.server = self._consul = PrivateConsul(binary, folder / "consul", {})
        self.url, self.version = self._consul.url, _first_line(binary, "version")
        self.start, self.end = self._consul.start, self._consul.kill

    def leases(self) -> int:
        return len(json.loads(_answered(ask(f"{self._consul.http}/v1/session/list?consistent"))))

    def events(self) -> None:
        """Consul has no history of its keys."""


class Etcd:
    """One etcd member, which never compacts its history."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.server: Server | None
        self.server = self._etcd = PrivateEtcd(binary, folder / "etcd", {})
        self.url, self.version = self._etcd.url, _first_line(binary, "--version").replace(" Version:", "")
        self.start, self.end = self._etcd.start, self._etcd.kill

    def leases(self) -> int:
        answer = call(self._etcd.http, "lease/leases")
        _answered(answer.get("header"))
        return len(answer.get("leases", []))

    def events(self) -> list[Event]:
        """A watch from the very first revision to now."""
        everything = base64.b64encode(b"\0").decode()
        now = int(call(self._etcd.http, "kv/range", key=everything)["header"]["revision"])
        wanted = {"create_request": {"key": everything, "range_end": everything, "start_revision": 1}}
        request = urllib.request.Request(f"{self._etcd.http}/v3/watch", data=json.dumps(wanted).encode())
        found: list[Event] = []
        revision = 0
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as lines:
            while revision < now:
                result = json.loads(next(lines))["result"]
                if result.get("canceled"):
                    raise RuntimeError(f"etcd has not kept its history: {result}")
                for event in map(_event, result.get("events", [])):
                    revision = max(revision, event.revision)
                    if event.key != PROBES:
                        found.append(event)
        # Of one transaction's changes the recorder's comes last.
        return sorted(found, key=lambda event: (event.revision, event.key.startswith(PREFIX)))


def _event(event: Mapping[str, Any]) -> Event:
    pair = event["kv"]
    key, revision = base64.b64decode(pair["key"]).decode(), int(pair["mod_revision"])
    if event.get("type") == "DELETE":
        return Event(revision, key, "")
    return Event(revision, key, digest(base64.b64decode(pair.get("value", ""))), str(pair.get("lease", "")))


class Embedded:
    """A file of the embedded store, in which triggers keep a history."""

    server: Server | None = None
    _TRIGGERS = """
        CREATE TABLE history (number INTEGER PRIMARY KEY, revision INTEGER, key TEXT, value BLOB, lease TEXT);
        CREATE TRIGGER history_of_changes AFTER INSERT ON changes BEGIN
            INSERT INTO history (revision, key) VALUES (NEW.revision, NEW.keys);
        END;
        CREATE TRIGGER history_of_new AFTER INSERT ON entries BEGIN
            INSERT INTO history (revision, key, value, lease) VALUES (NEW.revision, NEW.key, NEW.value, NEW.lease);
        END;
        CREATE TRIGGER history_of_old AFTER UPDATE ON entries BEGIN
            INSERT INTO history (revision, key, value, lease) VALUES (NEW.revision, NEW.key, NEW.value, NEW.lease);
        END;
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sked.db"
        self.url, self.version = f"sqlite://{self._path}", f"SQLite {sqlite3.sqlite_version}"

    def start(self) -> None:
        with contextlib.closing(open_database(self._path)) as connection:
            connection.executescript(self._TRIGGERS)

    def end(self) -> None:
        """Nothing runs."""

    def leases(self) -> int:
        return int(self._rows("SELECT count(*) FROM leases")[0][0])

    def events(self) -> list[Event]:
        return list(_embedded_events(self._rows("SELECT revision, key, value, lease FROM history ORDER BY number")))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as connection:
            return connection.execute(query).fetchall()


def _embedded_events(rows: list[tuple[Any, ...]]) -> Iterator[Event]:
    """A change without an entry of its revision is the removal of a key."""
    written = {revision for revision, _, value, _ in rows if value is not None}
    for revision, key, value, lease in rows:
        if value is not None:
            yield Event(revision, key, digest(bytes(value)), lease)
        elif revision not in written:
            yield Event(revision, key, "")


def engine(backend: str, folder: Path) -> Engine:
    """An engine of that kind, not started, with the program that ``scripts/services`` has brought, or the one on
    PATH. Raises FileNotFoundError if there is none."""
    if backend == "embedded":
        return Embedded(folder)
    binary = shutil.which(_settings().get(f"{backend.upper()}_BIN", backend))
    if binary is None:
        raise FileNotFoundError(f"there is no {backend} program: run scripts/services start, or put one on PATH")
    return Consul(binary, folder) if backend == "consul" else Etcd(binary, folder)


def _settings() -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError):
        lines = (ROOT / ".services" / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines) | dict(os.environ)
    return dict(os.environ)


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.partition("\n")[0]


def _answered(answer: Any) -> Any:
    if answer is None:
        raise OSError("the server does not answer")
    return answer
