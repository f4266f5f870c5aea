"""Events are kept with the commits that make them true, within a bound, and handed to whoever observes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sked_core.errors import Conflict, Unavailable
from sked_core.interfaces.store import Check, Op, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Event
from sked_core.runtime import delivery, journal
from sked_core.runtime.delivery import Delivery
from sked_core.runtime.journal import Journal
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import RecordingStore


class Kept:
    """A journal on a store, and what it has told."""

    def __init__(self, who: str = "scheduler s1") -> None:
        self.memory, self.clock = MemoryStore(), FakeClock(wall=1_700_000_000.25)
        self.store = RecordingStore(self.memory)
        self.told: list[Event] = []
        self.journal = Journal(self.store, self.clock, who, self.told.append)

    def add(self, *names: str, **more: str) -> None:
        for name in names:
            self.journal.add(self.journal.event(name, "host/h-1", **more))

    def entries(self) -> dict[str, list[Event]]:
        entries = self.memory.read(keys.EVENTS).entries
        return {key: decode(entry.value, list[Event]) for key, entry in entries.items()}

    def names(self) -> list[str]:
        return [event.what for events in self.entries().values() for event in events]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_an_event_says_when_who_what_and_why(kept):
    event = kept.journal.event("task.issued", "task/web-1-0", why="desired 1", service="web", host="h-1", after="h-1")
    assert kept.journal.put([event]).value == (
        b'[{"at":"2023-11-14T22:13:20Z","who":"scheduler s1","what":"task.issued","subject":"task/web-1-0",'
        b'"service":"web","host":"h-1","why":"desired 1","from":"","to":"h-1"}]'
    )


def test_what_is_told_stands_or_falls_with_its_commit(kept):
    events = [kept.journal.event("task.issued", "task/web-1-0"), kept.journal.event("task.issued", "task/web-1-1")]
    with pytest.raises(Conflict):
        kept.store.commit([Check("config/services/web", Revision(7)), kept.journal.put(events)])
    assert (kept.entries(), kept.told) == ({}, [])
    kept.store.commit([Put("config/services/web", b"{}"), kept.journal.put(events)])
    kept.journal.tell(events)
    assert list(kept.entries().values()) == [events] == [kept.told]


def test_keys_sort_as_things_happened_and_differ_from_those_of_others(kept):
    other = Journal(kept.store, kept.clock, "me@laptop ü", source="me@laptop-1f")
    for number in range(12):
        kept.clock.advance(0.5)
        for one in (kept.journal, other):
            kept.store.commit([one.put([one.event(f"number.{number}", "host/h")])])
    assert kept.names() == [f"number.{number}" for number in range(12) for _ in "ab"]
    assert sorted(kept.entries())[0] == "events/01700000000750-me-laptop-1f-1"


@pytest.mark.parametrize("text", ["x" * 10_000, "\ud800 no text", "\x00\x1b[2J\n"])
def test_any_text_can_be_a_reason(kept, text):
    kept.add("task.failed", why=text, before=text)
    kept.journal.flush()
    [[event]] = kept.entries().values()
    assert len(event.why) <= journal.MAX_TEXT + 10
    assert event.why == event.before


def test_very_many_events_of_one_commit_fit_into_one_key_which_says_how_many_are_left_out(kept):
    events = [kept.journal.event("task.issued", f"task/web-1-{n}", why="x" * 400) for n in range(1000)]
    put = kept.journal.put(events)
    assert len(put.value) <= journal.MAX_BYTES_OF_COMMIT + 1000
    *shown, last = decode(put.value, list[Event])
    assert shown == events[: len(shown)]
    assert len(shown) > 30
    assert (last.what, last.why) == (
        "events.omitted",
        f"{1000 - len(shown)} more of the same commit are not told one by one",
    )
    kept.journal.tell(events)
    assert kept.told == events


def test_events_that_go_with_no_commit_are_told_at_once_and_kept_by_flush_in_one_commit(kept):
    kept.add("agent.started", "task.started")
    assert [event.what for event in kept.told] == ["agent.started", "task.started"]
    assert kept.entries() == {}
    kept.journal.flush()
    kept.journal.flush()
    assert len(kept.store.commits) == 1
    assert kept.names() == ["agent.started", "task.started"]


def test_an_outage_keeps_the_newest_for_later_in_order(kept):
    kept.store.down = "gone"
    for number in range(journal.MAX_WAITING + 5):
        kept.add(f"n.{number}")
    with pytest.raises(Unavailable):
        kept.journal.flush()
    kept.add("last")
    kept.store.down = ""
    kept.clock.advance(60)
    kept.journal.flush()
    names = kept.names()
    assert names[-1] == "last"
    assert names[0] == "n.5"
    assert names == [f"n.{number}" for number in range(5, journal.MAX_WAITING + 5)] + ["last"]


def test_what_a_lost_answer_had_kept_already_is_not_kept_twice(kept, monkeypatch):
    commit = kept.store.commit

    def lost(ops: list[Op]) -> None:
        commit(ops)
        raise Unavailable("no answer")

    monkeypatch.setattr(kept.store, "commit", lost)
    kept.add("task.started")
    with pytest.raises(Unavailable):
        kept.journal.flush()
    monkeypatch.setattr(kept.store, "commit", commit)
    kept.add("task.stopped")
    kept.clock.advance(1)
    kept.journal.flush()
    assert kept.names() == ["task.started", "task.stopped"]


def test_threads_may_tell_at_the_same_time_and_nothing_is_lost(kept):
    def tell(name: str) -> None:
        for number in range(50):
            kept.add(f"{name}.{number}")
            kept.journal.flush()

    threads = [threading.Thread(target=tell, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kept.names()) == sorted(f"{name}.{number}" for name in "abcd" for number in range(50))


def test_trim_keeps_the_newest_within_the_bound_of_keys(kept, monkeypatch):
    monkeypatch.setattr(journal, "MAX_KEPT_KEYS", 200)
    for number in range(450):
        kept.clock.advance(0.1)
        kept.store.commit([kept.journal.put([kept.journal.event(f"n.{number}", "host/h")])])
    kept.store.max_ops = 64
    kept.journal.trim()
    assert kept.names() == [f"n.{number}" for number in range(250, 450)]
    assert max(len(ops) for ops in kept.store.commits) <= 64


def test_trim_keeps_within_the_bound_of_bytes(kept, monkeypatch):
    monkeypatch.setattr(journal, "MAX_KEPT_BYTES", 20_000)
    for number in range(100):
        kept.clock.advance(0.1)
        kept.store.commit([kept.journal.put([kept.journal.event(f"n.{number}", "host/h", why="x" * 400)])])
    kept.journal.trim()
    assert 15_000 < sum(len(entry.value) for entry in kept.memory.read(keys.EVENTS).entries.values()) <= 20_000
    assert kept.names()[-1] == "n.99"


def test_trim_gives_way_to_whoever_removes_the_same(kept, monkeypatch):
    monkeypatch.setattr(journal, "MAX_KEPT_KEYS", 1)
    for number in range(5):
        kept.clock.advance(0.1)
        kept.store.commit([kept.journal.put([kept.journal.event(f"n.{number}", "host/h")])])
    commit = kept.store.commit

    def raced(ops: list[Op]) -> Revision:
        Journal(kept.memory, kept.clock, "another").trim()
        return commit(ops)

    monkeypatch.setattr(kept.store, "commit", raced)
    kept.journal.trim()
    assert kept.names() == ["n.4"]


def test_a_slow_plugin_holds_nobody_up_and_loses_the_oldest(kept, until: Callable[..., Any], monkeypatch, caplog):
    monkeypatch.setattr(delivery, "MAX_QUEUED", 10)
    go, seen = threading.Event(), []

    def slow(event: Event) -> None:
        seen.append(event.what)
        go.wait(60)

    deliver = Delivery(slow)
    deliver(kept.journal.event("first", "host/h"))
    until("the first is with the plugin", lambda: seen)
    for number in range(25):
        deliver(kept.journal.event(f"n.{number}", "host/h"))
    go.set()
    until("all are delivered", lambda: seen[-1] == "n.24")
    assert seen == ["first", *(f"n.{number}" for number in range(15, 25))]
    assert [record.message for record in caplog.records] == [
        "plugins take events in too slowly: the oldest are left out"
    ]
    deliver.close(10)


def test_at_the_end_what_waits_is_delivered_unless_it_takes_too_long(kept):
    seen: list[str] = []
    deliver = Delivery(lambda event: seen.append(event.what))
    for number in range(100):
        deliver(kept.journal.event(f"n.{number}", "host/h"))
    deliver.close(30)
    assert len(seen) == 100
    stuck = threading.Event()
    deliver = Delivery(lambda _: stuck.wait(60) and None)
    deliver(kept.journal.event("stuck", "host/h"))
    deliver.close(0.1)
    stuck.set()
