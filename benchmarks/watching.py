"""Processes that wait for changes below a prefix and note when they are woken: by Sked's store, or by the engine's own
plainest means. All times are seconds of this machine's monotonic clock, which all its processes share."""

from __future__ import annotations

import base64
import bisect
import http.client
import json
import multiprocessing
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import grpc
from engines import Engine

from sked_core.interfaces.store import Revision
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_etcd import messages

_MODIFIED = 0x2
"""IN_MODIFY of inotify(7)."""


class Waiter:
    """A process that waits for changes below ``prefix`` in ``way``: ``store`` or one of ``raw_ways``.

    Use it as a context; ``woken`` may be read after it. The writer calls ``stop``, then makes one more change.
    """

    def __init__(self, engine: Engine, prefix: str, way: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        self._pipe, there = spawn.Pipe()
        where = engine.url if way == "store" else engine.address
        self._process = spawn.Process(target=_note, args=(where, prefix, way, there))
        self.woken: list[float] = []

    def __enter__(self) -> Waiter:
        self._process.start()
        self._pipe.recv()  # it waits
        return self

    def stop(self) -> None:
        self._pipe.send("stop")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._pipe.poll(30):
            self.woken = self._pipe.recv()
        self._process.terminate()
        self._process.join()

    def delays(self, begun: list[float]) -> list[float]:
        """Seconds from each of ``begun`` to the first waking after it. Raises SystemExit if there is none."""
        found = []
        for at in begun:
            position = bisect.bisect(self.woken, at)
            if position == len(self.woken):
                raise SystemExit("a change woke nobody")
            found.append(self.woken[position] - at)
        return found


def raw_ways(name: str) -> tuple[str, ...]:
    """The engine's own watches that are measured."""
    return {"consul": ("blocking query",), "etcd": ("gRPC watch", "gateway watch")}.get(name, ("inotify",))


def _note(where: str, prefix: str, way: str, pipe: Connection) -> None:
    """What the process does: it yields a time per waking, and the first one when it has begun to wait."""
    woken: list[float] = []
    for number, at in enumerate(_ways[way](where, prefix)):
        if number == 0:
            pipe.send("waiting")
            continue
        if pipe.poll():
            break
        woken.append(at)
    pipe.send(woken)


def _store(url: str, prefix: str) -> Iterator[float]:
    store = open_store(url, Plugins.load())
    since = store.wait(prefix, store.read(prefix).revision, 0.2)  # whatever is made for the first wait is there now
    yield time.monotonic()
    while True:
        revision = store.wait(prefix, since, 55.0)
        at = time.monotonic()
        if revision != since:
            since = Revision(revision)
            yield at


def _blocking_query(address: str, prefix: str) -> Iterator[float]:
    connection = http.client.HTTPConnection(address)
    index = ""
    while True:
        wait = f"&wait=55s&index={index}" if index else ""
        connection.request("GET", f"/v1/kv/{prefix}?keys{wait}")
        answer = connection.getresponse()
        answer.read()
        at = time.monotonic()
        found = answer.headers["X-Consul-Index"]
        if found != index:
            index = found
            yield at


def _grpc_watch(address: str, prefix: str) -> Iterator[float]:
    channel = grpc.insecure_channel(address)
    start = messages.range_answer(channel.unary_unary(messages.RANGE)(messages.range_request(b"\0"))).revision
    request = messages.watch_request(prefix, start + 1)
    for answer in channel.unary_stream(messages.WATCH)(request):
        at = time.monotonic()
        told = messages.watch_answer(answer)
        if told.created or told.changed:
            yield at


def _gateway_watch(address: str, prefix: str) -> Iterator[float]:
    key, end = (base64.b64encode(part).decode() for part in messages.span(prefix))
    connection = http.client.HTTPConnection(address)
    connection.request("POST", "/v3/watch", json.dumps({"create_request": {"key": key, "range_end": end}}))
    answer = connection.getresponse()
    while answer.readline():
        yield time.monotonic()


def _inotify(path: str, prefix: str) -> Iterator[float]:
    """The kernel tells of a write to SQLite's log before the commit can be seen, so that has to be asked for."""
    from inotify_simple import INotify

    db = sqlite3.connect(path, isolation_level=None)
    db.execute("SELECT count(*) FROM entries").fetchone()  # opens the log
    log = INotify()
    log.add_watch(Path(path + "-wal"), _MODIFIED)
    below = "SELECT max(revision) FROM entries WHERE key >= ? AND key < ?"
    version = known = -1
    while True:
        asked_until = time.monotonic() + 0.1
        while time.monotonic() < asked_until:
            current = db.execute("PRAGMA data_version").fetchone()[0]
            if current != version:
                version = current
                latest = db.execute(below, (prefix, prefix + "\x7f")).fetchone()[0]
                if latest != known:
                    known = latest
                    yield time.monotonic()
            time.sleep(0.0002)
        log.read()


_ways: Mapping[str, Callable[[str, str], Iterator[float]]] = {
    "store": _store,
    "blocking query": _blocking_query,
    "gRPC watch": _grpc_watch,
    "gateway watch": _gateway_watch,
    "inotify": _inotify,
}
