"""Short runs of the proof on real engines (scripts/history does long ones), and proof that it would tell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from history.checker import Verdict, check
from history.engines import Embedded, Engine, engine
from history.hosts import SimulatedHosts
from history.nemesis import Scheduler
from history.recorder import PREFIX, UNFENCED, RecordedStore
from history.records import Commit, History, read_commits, revisions
from history.report import as_markdown
from history.run import run
from history.users import Users
from sked_core.model import keys
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

FAULTS_SECONDS = 40.0
PATIENCE = 90.0
"""A bound for hangs."""


@pytest.fixture(params=["embedded", "consul", "etcd"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Engine]:
    """A backend by name, with an engine of its own."""
    name = request.param
    try:
        return name, engine(name, tmp_path)
    except FileNotFoundError as error:
        if name in os.environ.get("SKED_TEST_REQUIRE", "").split(","):
            pytest.fail(f"SKED_TEST_REQUIRE names {name}, but {error}")
        pytest.skip(str(error))


@pytest.mark.timeout(900)
def test_schedulers_under_faults_keep_every_promise(backend: tuple[str, Engine], tmp_path: Path) -> None:
    name, fresh = backend
    result = run(fresh, tmp_path, backend=name, seconds=FAULTS_SECONDS, seed=5, pace=6.0)
    said = as_markdown(result)
    assert result.proven, said
    assert result.faults.total() >= 2, said
    assert len({one.process for one in result.history.effective if one.by_scheduler}) >= 4, said
    assert all(result.verdict.asked[rule] for rule in ("acknowledged", "guards", "holder", "one host", "max")), said


class Small:
    """One scheduler on an embedded store, some hosts and services, and no faults but those that a test brings."""

    def __init__(self, folder: Path, inner: str = "") -> None:
        self.folder = folder
        self.engine: Engine = Embedded(folder)
        self.engine.start()
        self._over = threading.Event()
        hosts = SimulatedHosts(self._store("hosts"), ["a", "b"], 1, self._over)
        self.users = Users(self._store("users"), ["a", "b"], hosts.leave, 1)
        self.scheduler = Scheduler(1, inner + self.engine.url, folder)
        self.users.declare()
        self._threads = hosts.start()
        self.scheduler.start()
        self.bare = open_store(self.engine.url, Plugins.load())

    def _store(self, name: str) -> RecordedStore:
        return RecordedStore(open_store(self.engine.url, Plugins.load()), self.folder, name)

    def until(self, what: str, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.05)

    def late_commit(self) -> str:
        """Stop the scheduler just before a commit of tasks with a fence, and let it go on when its lock has ended; how
        that commit ends."""
        while True:
            self.until("a stop", lambda: self.users.scale() or self.scheduler.aim("stop", threading.Event()))
            under_way = [one for one in self.commits() if one.stopped and one.fences and not one.end]
            held_up = [one.number for one in under_way if any(put.key.startswith(keys.TASKS) for put in one.puts)]
            if held_up and self._writable():
                break
            self.scheduler.signal(signal.SIGCONT)
        self.until("the end of the lock", lambda: not self.bare.read(keys.LOCKS).entries)
        self.scheduler.signal(signal.SIGCONT)
        name = f"{self.scheduler.name}/{held_up[0]}"

        def answer() -> str:
            return next(one.end for one in self.commits() if one.name == name)

        self.until("an answer", answer)
        return answer()

    def _writable(self) -> bool:
        """Whether no other thread of the stopped process is amid a transaction, which keeps everybody out."""
        with contextlib.closing(sqlite3.connect(self.folder / "sked.db", timeout=1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def commits(self) -> list[Commit]:
        """What has been recorded so far."""
        return read_commits(self.folder, revisions(self.bare.read(PREFIX).entries))[0]

    def verdict(self) -> Verdict:
        """End everything, and judge it."""
        self.end()
        commits, strays = read_commits(self.folder, revisions(self.bare.read(PREFIX).entries))
        return check(History(commits, strays, self.engine.events()))

    def end(self) -> None:
        """Idempotent."""
        self.scheduler.kill()
        self._over.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path, getattr(request, "param", ""))
    yield made
    made.end()
    made.bare.close()


def test_a_commit_after_the_end_of_its_lock_is_refused(small: Small) -> None:
    # One that was stopped while another thread of its process was writing finds its deadline over instead.
    small.until("a refusal", lambda: small.late_commit() == "conflict")
    assert small.verdict().violations == []


@pytest.mark.parametrize("small", [UNFENCED], indirect=True)
def test_a_store_that_ignores_fences_is_found_out(small: Small) -> None:
    # Whoever changed the service's tasks meanwhile makes the commit fail for another reason: a check.
    small.until("a commit that comes through", lambda: small.late_commit() == "ok")
    assert {violation.rule for violation in small.verdict().violations} >= {"guards", "holder"}


@pytest.mark.parametrize(("order", "end"), [("kill", ""), ("die", ""), ("forget", "unknown")])
def test_orders_are_obeyed_in_the_worst_moment_and_recorded(small: Small, order: str, end: str) -> None:
    name = small.scheduler.name
    small.until(order, lambda: small.users.scale() or small.scheduler.aim(order, threading.Event()))
    small.until("the record", lambda: _ordered(small.folder / f"{name}.jsonl", order))
    number = _ordered(small.folder / f"{name}.jsonl", order)
    small.until("the outcome", lambda: end in [one.end for one in small.commits() if one.number == number])
    (one,) = (one for one in small.commits() if (one.process, one.number) == (name, number))
    assert one.end == end
    assert bool(one.revision) == (order != "kill")
    assert small.verdict().violations == []


def _ordered(path: Path, order: str) -> int:
    """The number of the commit at which the order was carried out; 0 if it was not."""
    found = [line for line in map(json.loads, path.read_text().splitlines()) if line.get("order") == order]
    return found[-1]["n"] if found else 0
