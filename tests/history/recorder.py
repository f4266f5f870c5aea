"""Stores that record every commit: ``recorded+sqlite://``, ``recorded+consul://``, ``recorded+etcd://``.

Each commit is written down twice. First, before it is sent, as a line of the process's own file, which survives the
kill of the process; its outcome becomes a second line. Second, inside the commit itself, as one more key,
``recorded/<process>/<number>``: it comes into being with the commit or not at all, so its revision is the commit's,
and whether a commit was carried out whose answer got lost is not a matter of opinion.

To processes that have tests/history/installed on their PYTHONPATH this module is a plugin.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sked_core.errors import Conflict, LeaseLost, SkedError, Unavailable
from sked_core.interfaces.hookspecs import hookimpl
from sked_core.interfaces.store import Check, Delete, Fence, Lease, Op, Put, Revision, Snapshot, Store
from sked_core.model import keys
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

PREFIX = "recorded/"
SCHEME = "recorded+"
UNFENCED = "unfenced+"
FOLDER, NAME = "SKED_HISTORY_FOLDER", "SKED_HISTORY_NAME"
"""Environment: where the lines go, and what this process is called, which no other one ever was."""
ENDS = {Conflict: "conflict", LeaseLost: "lease lost", Unavailable: "unknown"}
"""After any other error nothing was sent."""


def digest(value: bytes) -> str:
    """What stands for a value in a history."""
    return hashlib.sha256(value).hexdigest()[:16]


class Lines:
    """Appends to ``<folder>/<name>.jsonl``, one write to a line, from any thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, **fields: object) -> None:
        os.write(self._file, json.dumps({"at": time.monotonic(), **fields}).encode() + b"\n")


class RecordedStore:
    """``store``, with every commit of the process ``name`` recorded. A commit takes one operation less.

    A file ``<folder>/<name>.<order>`` is carried out, and removed, at the next commit that depends on a lease, in the
    worst moment. Before it is sent, when the process has made sure of its lease and nothing but the store can keep it
    off any more: ``stop`` (SIGSTOP) or ``kill``. When it has been carried out: ``die`` (killed before it knows) or
    ``forget`` (told that the outcome is not known).
    """

    def __init__(self, store: Store, folder: Path, name: str) -> None:
        self._store, self._folder, self._name = store, folder, name
        self._lines = Lines(folder, name)
        self._numbers = itertools.count(1)
        self.max_ops = store.max_ops - 1

    def commit(self, ops: Sequence[Op]) -> Revision:
        number = next(self._numbers)
        leased = any(isinstance(op, Fence) or (isinstance(op, Put) and op.lease is not None) for op in ops)
        self._lines.add(n=number, ops=[_told(op) for op in ops])
        if leased and self._ordered(number, "stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if leased and self._ordered(number, "kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            revision = self._store.commit([*ops, Put(f"{PREFIX}{self._name}/{number}", b"1")])
            if leased and self._ordered(number, "die"):
                os.kill(os.getpid(), signal.SIGKILL)
            if leased and self._ordered(number, "forget"):
                raise Unavailable("the answer to a commit was lost")
        except SkedError as error:
            self._lines.add(n=number, end=ENDS.get(type(error), "refused"), why=str(error)[:200])
            raise
        self._lines.add(n=number, end="ok", revision=revision)
        return revision

    def _ordered(self, number: int, order: str) -> bool:
        try:
            (self._folder / f"{self._name}.{order}").unlink()
        except FileNotFoundError:
            return False
        self._lines.add(n=number, order=order)
        return True

    def read(self, prefix: str) -> Snapshot:
        return self._store.read(prefix)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        self._store.close()


def _told(op: Op) -> list[object]:
    match op:
        case Check(key, revision):
            return ["check", key, revision]
        case Fence(key, lease):
            return ["fence", key, lease.id]
        case Delete(key):
            return ["delete", key]
        case Put(key, value, lease):
            return ["put", key, lease.id if lease else "", digest(value), _facts(key, value)]


def _facts(key: str, value: bytes) -> Mapping[str, Any] | None:
    """What a checker wants to know of a value."""
    if key.startswith(keys.STATE):
        task = json.loads(value)
        said = {name: task[name] for name in ("service", "host", "scheduled", "rejected")}
        return {**said, "cluster": task["cluster"]["name"]}
    if key.startswith(keys.SERVICES):
        service = json.loads(value)
        return {name: service[name] for name in ("desired", "min", "max")}
    return None


class Unfenced:
    """``store``, with fences ignored: a store that does not keep its promise, which the checker has to find out."""

    def __init__(self, store: Store) -> None:
        self._store, self.max_ops = store, store.max_ops
        self.read, self.wait, self.grant, self.close = store.read, store.wait, store.grant, store.close

    def commit(self, ops: Sequence[Op]) -> Revision:
        return self._store.commit([op for op in ops if not isinstance(op, Fence)])


def open_recorded(url: str) -> Store:
    """The store behind ``recorded+<url>`` or ``recorded+unfenced+<url>``, recorded as the environment says."""
    url = url.removeprefix(SCHEME)
    inner = open_store(url.removeprefix(UNFENCED), Plugins.load())
    if url.startswith(UNFENCED):
        inner = Unfenced(inner)
    return RecordedStore(inner, Path(os.environ[FOLDER]), os.environ[NAME])


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    schemes = ("sqlite", "consul", "etcd", UNFENCED + "sqlite")
    return {SCHEME + scheme: open_recorded for scheme in schemes}
