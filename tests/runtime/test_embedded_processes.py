"""One file, several processes: they see each other's commits at once, and any of them may be killed at any moment."""

from __future__ import annotations

import random
import select
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sked_core.errors import Conflict, LeaseLost
from sked_core.interfaces.store import Check, Fence, Put, Revision
from sked_core.runtime.stores import wal_watch
from sked_core.runtime.stores.embedded import EmbeddedStore

PRELUDE = """
import sys, time
from pathlib import Path
from sked_core.errors import Conflict
from sked_core.interfaces.store import *
from sked_core.runtime.stores.embedded import EmbeddedStore
store = EmbeddedStore(Path(sys.argv[1]))
def say(text):
    print(text, flush=True)
"""

WRITER = """
entries = store.read("batch/").entries
number = int(entries["batch/0"].value) if entries else 0
while True:
    number += 1
    store.commit([Put(f"batch/{key}", b"%d" % number) for key in range(20)])
    say(number)
"""

ECHO = """
from sked_core.runtime.stores import wal_watch
wal_watch._SLOW_POLL_S = 600.0
since = store.read("ask/").revision
say("ready")
while True:
    since = store.wait("ask/", since, 60)
    asked = store.read("ask/").entries["ask/1"].value
    store.commit([Put("answer/1", asked)])
"""

INCREMENT = """
for _ in range(50):
    while True:
        entry = store.read("count").entries["count"]
        try:
            store.commit([Check("count", entry.revision), Put("count", b"%d" % (int(entry.value) + 1))])
            break
        except Conflict:
            continue
say("done")
"""

HOLDER = """
lease = store.grant(5)
store.commit([Put("locks/x", b"holder", lease)])
say(lease.id)
while True:
    time.sleep(0.5)
    lease.renew()
"""


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs ``script`` on the store at ``path``; killed in the end."""
    child = subprocess.Popen([sys.executable, "-c", PRELUDE + script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    assert select.select([child.stdout], [], [], 60)[0], "the process says nothing"
    return child.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sked.db"


def test_another_process_is_heard_within_milliseconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, that is: what is not heard of would be found only by looking every now and then."""
    monkeypatch.setattr(wal_watch, "_SLOW_POLL_S", 600.0)
    with closing(EmbeddedStore(path)) as store, process(ECHO, path) as child:
        assert line_of(child) == "ready"
        since, took = store.read("answer/").revision, []
        for number in range(30):
            begun, value = time.monotonic(), b"%d" % number
            store.commit([Put("ask/1", value)])
            while True:
                since = store.wait("answer/", since, 60)
                entry = store.read("answer/").entries.get("answer/1")
                if entry and entry.value == value:
                    break
                assert time.monotonic() - begun < 60, "a commit was not heard of"
            took.append(time.monotonic() - begun)
    print(f"there and back: median {statistics.median(took) * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")


def test_processes_lose_no_update_of_each_other(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.commit([Put("count", b"0")])
        with process(INCREMENT, path) as one, process(INCREMENT, path) as two, process(INCREMENT, path) as three:
            assert [line_of(child) for child in (one, two, three)] == ["done"] * 3
        assert store.read("count").entries["count"].value == b"150"


@pytest.mark.parametrize("company", [False, True], ids=["alone", "while another process has it open"])
def test_kill_at_any_moment_tears_and_loses_nothing(path: Path, company: bool) -> None:
    chance = random.Random(20)
    bystander = EmbeddedStore(path)
    if company:
        assert bystander.read("").entries == {}
    acknowledged = 0
    for _ in range(10):
        with process(WRITER, path) as child:
            acknowledged = int(line_of(child))
            time.sleep(chance.uniform(0.0, 0.15))  # the moment of the kill is what is tried out here
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert child.stdout
            # A line that was cut off by the kill was not said to anybody.
            said = [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        acknowledged = int(said[-1]) if said else acknowledged
        with closing(EmbeddedStore(path)) as store:
            snapshot = store.read("batch/")
            found = {entry.value for entry in snapshot.entries.values()}
            assert len(snapshot.entries) == 20
            assert len(found) == 1, "a commit was torn"
            assert acknowledged <= int(found.pop()) <= acknowledged + 1
            assert len({entry.revision for entry in snapshot.entries.values()}) == 1
            revision = store.commit([Put("after", b"")])
            assert revision > snapshot.revision
        if company:
            assert bystander.read("batch/").entries == snapshot.entries
    bystander.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_lock_of_a_killed_process_comes_free(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store, process(HOLDER, path) as holder:
        lease = line_of(holder)
        mine = store.grant(60)
        snapshot = store.read("locks/")
        assert snapshot.entries["locks/x"].lease == lease
        with pytest.raises(Conflict):
            store.commit([Check("locks/x", Revision(0)), Put("locks/x", b"me", mine)])
        holder.kill()
        holder.wait()
        killed, since = time.monotonic(), snapshot.revision
        while store.read("locks/").entries:
            assert time.monotonic() - killed < 60
            since = store.wait("locks/", since, 30)
        assert 0.5 < time.monotonic() - killed < 30, "neither before its ttl nor long after"
        store.commit([Check("locks/x", Revision(0)), Put("locks/x", b"me", mine)])


def test_a_paused_holder_finds_its_lock_gone(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store, closing(EmbeddedStore(path)) as rival:
        mine = store.grant(0.2)
        store.commit([Put("locks/x", b"me", mine)])
        since = rival.read("locks/").revision
        while rival.read("locks/").entries:
            since = rival.wait("locks/", since, 10)
        theirs = rival.grant(60)
        rival.commit([Check("locks/x", Revision(0)), Put("locks/x", b"them", theirs)])
        with pytest.raises(Conflict):
            store.commit([Fence("locks/x", mine), Put("work", b"")])
        with pytest.raises(LeaseLost):
            mine.renew()
        assert set(store.read("").entries) == {"locks/x"}
