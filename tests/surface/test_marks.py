"""Cordoned and draining hosts: what is written, what is shown while they empty, and how that ends."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import ClusterStatus, Event, Host, Mark, ServiceStatus
from sked_core.surface import draining


def marks(store) -> dict[str, Mark]:
    entries = store.read(keys.MARKS).entries
    return {keys.last_segment(key): decode(entry.value, Mark) for key, entry in entries.items()}


def told(store) -> list[tuple[str, ...]]:
    commits = [decode(entry.value, list[Event]) for _, entry in sorted(store.read(keys.EVENTS).entries.items())]
    return [(event.what, event.host, event.before, event.after, event.why) for events in commits for event in events]


@pytest.fixture
def meanwhile(store, monkeypatch) -> Callable[..., None]:
    """``meanwhile(*steps)``: each time that a command waits for a change, the next of these happens."""

    def arrange(*steps: Callable[[], object]) -> None:
        left = list(steps)

        def wait(self, prefix, since, timeout):
            left.pop(0)()
            return since

        monkeypatch.setattr(type(store), "wait", wait)

    return arrange


def test_drain_marks_all_hosts_at_once_and_uncordon_takes_it_back(sked, store, declare) -> None:
    declare(Host(name="h-1"), Host(name="h-2"), Host(name="h-3"))
    before = store.read(keys.MARKS).revision
    ran = sked("drain", "h-1", "h-2")
    assert (ran.code, ran.out) == (0, "")
    entries = store.read(keys.MARKS).entries
    assert {key: decode(entry.value, Mark).state for key, entry in entries.items()} == {
        "hosts/marks/h-1": "draining",
        "hosts/marks/h-2": "draining",
    }
    assert len({entry.revision for entry in entries.values()}) == 1
    assert before < entries["hosts/marks/h-1"].revision
    assert sked("cordon", "h-2", "h-3").code == 0
    assert marks(store)["h-2"].state == "cordoned"
    assert sked("uncordon", "h-1", "h-2", "h-3").code == 0
    assert store.read(keys.MARKS).entries == {}


def test_an_unknown_host_is_named_and_nothing_is_marked(sked, store, declare) -> None:
    declare(Host(name="web-1"))
    ran = sked("drain", "web-1", "web-2")
    assert ran.code == 4
    assert ran.err == "sked: no host web-2\n  did you mean web-1?\n"
    assert store.read(keys.MARKS).entries == {}
    assert sked("drain", "../x").code == 2


def test_drain_wait_returns_when_the_host_is_empty_or_the_time_is_up(
    sked, store, declare, issue, task, meanwhile
) -> None:
    declare(Host(name="node-1.local"))
    issue(task())
    late = sked("drain", "node-1.local", "--wait", "--timeout", "200ms")
    assert late.code == 9
    assert "1 task still on node-1.local" in late.err
    meanwhile(lambda: store.commit([Delete(keys.host_task("node-1.local", task().id))]))
    ran = sked("drain", "node-1.local", "--wait")
    assert ran.code == 0
    assert ran.err.splitlines()[-1] == "empty: node-1.local"


def test_a_mark_says_who_when_why_and_how(sked, store, declare, monkeypatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    declare(Host(name="h-1"), Host(name="h-2"))
    assert sked("drain", "h-1", "h-2", "--deadline", "10m", "--why", "new kernel").code == 0
    mark = marks(store)["h-1"]
    assert (mark.state, mark.force, mark.deadline, mark.why) == ("draining", False, 600.0, "new kernel")
    assert mark.by.startswith("alice@")
    assert mark.at.endswith("Z")
    assert told(store) == [
        ("host.draining", host, "ready", "draining for 600s at most", "new kernel") for host in ("h-1", "h-2")
    ]
    assert sked("uncordon", "h-1", "--why", "done").code == 0
    assert told(store)[2:] == [("host.ready", "h-1", "draining for 600s at most", "ready", "done")]


def test_the_same_drain_again_changes_nothing_and_other_options_change_it(sked, store, declare) -> None:
    declare(Host(name="h-1"))
    sked("drain", "h-1", "--deadline", "10m", "--why", "new kernel")
    entry = store.read(keys.MARKS).entries["hosts/marks/h-1"]
    for again in (["--deadline", "600s"], ["--deadline", "10m", "--why", "new kernel"]):
        assert sked("drain", "h-1", *again).code == 0
        assert store.read(keys.MARKS).entries["hosts/marks/h-1"] == entry
    assert len(told(store)) == 1
    sked("drain", "h-1", "--force")
    mark = marks(store)["h-1"]
    assert (mark.force, mark.deadline, mark.why) == (True, 0.0, "new kernel")
    assert told(store)[1:] == [("host.draining", "h-1", "draining for 600s at most", "draining by force", "")]
    sked("cordon", "h-1")
    assert (marks(store)["h-1"].state, marks(store)["h-1"].why) == ("cordoned", "")
    sked("uncordon", "h-1")
    sked("uncordon", "h-1")
    assert [what for what, *_ in told(store)[2:]] == ["host.cordoned", "host.ready"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--force", "--deadline", "5m"], "--force means now, --deadline means later"),
        (["--deadline", "0s"], "has to be more than 0"),
        (["--deadline", "soon"], "soon"),
    ],
)
def test_a_drain_that_can_not_be_meant_is_refused(sked, store, declare, options, says) -> None:
    declare(Host(name="h-1"))
    ran = sked("drain", "h-1", *options)
    assert ran.code == 2
    assert says in ran.err
    assert store.read(keys.MARKS).entries == {}


def test_more_hosts_than_one_commit_takes_are_cordoned_before_the_first_drains(
    sked, store, declare, monkeypatch
) -> None:
    names = [f"h-{number}" for number in range(7)]
    declare(*(Host(name=name) for name in names))
    monkeypatch.setattr(type(store), "max_ops", 4)
    assert sked("drain", *names).code == 0
    assert {mark.state for mark in marks(store).values()} == {"draining"}
    assert len(marks(store)) == 7
    assert [what for what, *_ in told(store)] == ["host.cordoned"] * 7 + ["host.draining"] * 7


def test_each_host_is_shown_with_what_is_left_and_why_it_waits(sked, store, declare, issue, task, meanwhile) -> None:
    declare(Host(name="a"), Host(name="b"))
    issue(
        task(instance=0, host="a"),
        task(instance=1, host="a", scheduled=False),
        task(instance=2, host="a", rejected=True),
        task(instance=3, host="b"),
    )
    status = ServiceStatus(scheduler="default", clusters={"default": ClusterStatus(blocked="min is max")})
    store.commit([Put(keys.service_status("helloworld"), encode(status))])

    def gone(*instances: int) -> None:
        ids = [(host, task(instance=n).id) for host, n in (("a", 0), ("a", 1), ("b", 3)) if n in instances]
        store.commit([Delete(keys.host_task(host, task_id)) for host, task_id in ids])

    meanwhile(lambda: gone(1), lambda: gone(3), lambda: gone(0))
    ran = sked("drain", "a", "b", "--wait")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.splitlines() == [
        "draining: a b (undo: sked uncordon a b)",
        "a: 2 of 2 tasks left (1 stopping, 1 waiting: helloworld: min is max)",
        "b: 1 of 1 task left (1 waiting: helloworld: min is max)",
        "a: 1 of 2 tasks left (1 waiting: helloworld: min is max)",
        "b: empty",
        "empty: a b",
    ]


def test_what_nobody_can_read_is_not_taken_for_gone(sked, store, declare, issue, task) -> None:
    declare(Host(name="a"))
    store.commit([Put("state/hosts/a/odd", b"{")])
    ran = sked("drain", "a", "--wait", "--timeout", "100ms")
    assert ran.code == 9
    assert "a: 1 of 1 task left (1 waiting)" in ran.err


def test_a_drain_that_takes_too_long_goes_on_and_says_what_can_be_done(sked, store, declare, issue, task) -> None:
    declare(Host(name="a"), Host(name="b"))
    issue(task(host="a"), task(instance=1, host="b"))
    ran = sked("drain", "a", "b", "--deadline", "1h", "--wait", "--timeout", "100ms")
    assert ran.code == 9
    assert ran.err.splitlines()[-7:] == [
        "sked: 1 task still on a; 1 task still on b",
        "  the drain goes on",
        "  what is left:  sked tasks --by-host a",
        "  what is left:  sked tasks --by-host b",
        "  what waits:    sked services",
        "  go below min:  sked drain a b --force",
        "  attach again:  sked drain a b --deadline 3600s --wait",
    ]


def test_ctrl_c_ends_the_waiting_only(sked, store, declare, issue, task, meanwhile) -> None:
    declare(Host(name="a"))
    issue(task(host="a"))
    meanwhile(lambda: signal.raise_signal(signal.SIGINT))
    ran = sked("drain", "a", "--wait")
    assert ran.code == 130
    assert ran.err.splitlines()[-2:] == [
        "sked: interrupted; the drain goes on",
        "  attach again:  sked drain a --wait",
    ]
    assert marks(store)["a"].state == "draining"


def test_an_outage_is_waited_for(sked, store, declare, issue, task, meanwhile, monkeypatch) -> None:
    monkeypatch.setattr(draining, "RETRY_SECONDS", 0.01)
    declare(Host(name="a"))
    issue(task(host="a"))
    kind, failures = type(store), []
    read = kind.read

    def unsteady(self, prefix):
        if failures and prefix.startswith(keys.HOST_TASKS):
            raise Unavailable(failures.pop())
        return read(self, prefix)

    monkeypatch.setattr(kind, "read", unsteady)
    gone = Delete(keys.host_task("a", task().id))
    meanwhile(lambda: failures.extend(["the store is away"] * 3), lambda: store.commit([gone]))
    ran = sked("drain", "a", "--wait")
    assert ran.code == 0
    assert ran.err.splitlines()[-2:] == ["the store is away; trying again", "empty: a"]
    failures.extend(["the store is away"] * 1000)
    ran = sked("drain", "a", "--wait", "--timeout", "100ms")
    assert ran.code == 6
    assert ran.err.splitlines()[-2:] == ["  the drain goes on", "  attach again:  sked drain a --wait"]
