"""``sked rebalance``: what is proposed is what schedulers are asked for, and people can go back on it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sked_core.client.acting import moving
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Liveness, Moves, Presence, Task
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task


@pytest.fixture
def up(store) -> Callable[..., None]:
    """``up("h1", "h2")``: living hosts."""

    def write(*names: str) -> None:
        for name in names:
            store.commit([Put(keys.host(name), encode(a_host(name).host)), Put(keys.live(name), encode(Liveness("a")))])

    return write


@pytest.fixture
def running(declare, issue) -> Callable[..., list[Task]]:
    """``running("web", "h1", "h2")``: a declared service with healthy tasks on these hosts."""

    def write(name: str, *hosts: str, **fields: object) -> list[Task]:
        definition, cluster = a_definition(name), a_cluster(f"of-{name}", services=(name,))
        declare(cluster, definition, a_service(name, desired=len(hosts), **fields))
        tasks = [a_task(host, number, definition, service=name, cluster=cluster) for number, host in enumerate(hosts)]
        issue(*tasks, healthy=True)
        return tasks

    return write


def records(store) -> dict[str, Moves]:
    return {keys.last_segment(key): decode(one.value, Moves) for key, one in store.read(keys.MOVES).entries.items()}


def told(store) -> list[Event]:
    entries = sorted(store.read(keys.EVENTS).entries.items())
    return [event for _, entry in entries for event in decode(entry.value, list[Event])]


def revision(ran) -> str:
    return next(line.removeprefix("revision ") for line in ran.out.splitlines() if line.startswith("revision "))


def test_it_says_what_would_be_gained_and_what_it_costs_and_writes_nothing(sked, store, up, running) -> None:
    up("h1", "h2", "h3")
    running("web", *["h1"] * 4)
    running("stiff", "h2", "h2", "h2", min=3, max=3)
    before = store.read("").revision
    ran = sked("rebalance")
    assert ran.code == 0 and store.read("").revision == before
    assert "4 tasks of web on h1, 0 on h3" in ran.out
    assert "largest difference between hosts in tasks of one service: 4 -> 1" in ran.out
    assert "of-web/web: 2 of 4 tasks moved in 2 steps of 65 s at most; never fewer than 4 healthy" in ran.out
    assert f"sked rebalance --apply --if-revision {revision(ran)}" in ran.out
    assert "left out: of-stiff/stiff: min 3 and max 3 leave no room to replace a task: raise max to 4" in ran.err


def test_nothing_to_gain_is_said_and_is_no_failure(sked, up, running) -> None:
    up("h1", "h2")
    running("web", "h1", "h2")
    ran = sked("rebalance", "--apply", "--wait")
    assert (ran.code, ran.out) == (0, "nothing to gain: every task may stay\n")


def test_exactly_what_was_reviewed_is_asked_for_with_who_and_why(sked, store, up, running) -> None:
    up("h1", "h2")
    running("web", *["h1"] * 4)
    ran = sked("rebalance", "web", "--max-moves", "1")
    command = next(line for line in ran.out.splitlines() if line.startswith("do exactly this:")).split()[3:]
    assert command[1:] == ["rebalance", "web", "--max-moves", "1", "--apply", "--if-revision", revision(ran)]
    assert sked(*command[1:], "--why", "h2 is new").code == 0
    (record,) = records(store).values()
    (move,) = record.moves
    assert (move.task, move.source, move.to, move.state) == ("of-web-web-1-3", "h1", "h2", "waiting")
    assert record.desired == 4 and record.why == "h2 is new" and record.by and record.at
    assert [(one.what, one.subject, one.why) for one in told(store)] == [
        ("service.rebalanced", "service/web", "1 move: h2 is new")
    ]
    again = sked("rebalance", "web", "--apply")
    assert again.code == 0 and "moves are under way: sked rebalance --cancel web ends them" in again.err


def test_what_is_not_true_any_more_is_not_done_and_the_difference_is_shown(sked, store, up, running) -> None:
    up("h1", "h2", "h3")
    running("web", *["h1"] * 4)
    number = revision(sked("rebalance"))
    store.commit([Delete(keys.live("h3"))])
    ran = sked("rebalance", "--apply", "--if-revision", number)
    assert ran.code == 5 and records(store) == {}
    assert f"what was reviewed as {number} is not what would be moved now" in ran.err and "0 on h2" in ran.err
    up("h3")
    assert sked("rebalance", "--apply", "--if-revision", number).code == 0, "it is as it was"
    assert len(records(store)["web"].moves) == 2


def test_what_changes_between_a_look_and_the_write_is_looked_at_anew(sked, store, up, running, monkeypatch) -> None:
    up("h1", "h2")
    tasks = running("web", *["h1"] * 4)
    honest, first = moving.write, []

    def write(*args):
        if not first:
            first.append(True)
            last = tasks[-1]
            store.commit([Put(keys.task(last.id), encode(a_task("h2", 3, last.task_definition, cluster=last.cluster)))])
        return honest(*args)

    monkeypatch.setattr(moving, "write", write)
    assert sked("rebalance", "--apply").code == 0
    assert [move.task for move in records(store)["web"].moves] == ["of-web-web-1-2"]


def test_it_says_at_once_where_nobody_is_there_to_make_the_moves(sked, store, up, running) -> None:
    up("h1", "h2")
    running("web", *["h1"] * 4)
    nobody = "web: no process is there that places by default; `sked run scheduler` is one\n"
    assert "no process" not in sked("rebalance").err
    ran = sked("rebalance", "--apply")
    assert (ran.code, ran.err) == (0, nobody)
    assert ran.out.endswith("asked for: schedulers make these moves once they are there\n")
    waited = sked("rebalance", "--wait", "--timeout", "0.1s")
    assert waited.code == 9 and waited.err.startswith(nobody)
    sked("rebalance", "--cancel")
    waited = sked("rebalance", "--apply", "--wait", "--timeout", "0.1s")
    assert waited.code == 9 and waited.err.startswith(nobody) and waited.err.count(nobody) == 1
    sked("rebalance", "--cancel")
    store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])
    ran = sked("rebalance", "--apply")
    assert ran.err == "" and ran.out.endswith("asked for: schedulers make these moves now\n")


def test_moves_can_be_given_up(sked, store, up, running) -> None:
    up("h1", "h2")
    running("web", *["h1"] * 4)
    running("api", *["h1"] * 4)
    assert sked("rebalance", "--cancel").out == "no moves are under way\n"
    sked("rebalance", "--apply")
    assert records(store).keys() == {"web", "api"}
    assert sked("rebalance", "web", "--cancel").out == "rebalance/web cancelled: 2 moves left\n"
    assert records(store).keys() == {"api"}
    assert [one.what for one in told(store)].count("move.cancelled") == 2
    assert sked("rebalance", "web", "--cancel").out == "rebalance/web unchanged: no moves are under way\n"
    store.commit([Put(keys.moves("web"), b"{")])
    assert sked("rebalance", "--cancel").code == 0 and store.read(keys.MOVES).entries == {}


def test_waiting_ends_when_all_moves_are_made_and_tells_of_those_that_were_given_up(
    sked, store, up, running, at_first_pause
) -> None:
    up("h1", "h2")
    running("web", *["h1"] * 4)
    sked("rebalance", "--apply")

    def schedulers(what: str) -> None:
        task = records(store)["web"].moves[0].task
        event = Event(at="", who="scheduler", what=what, subject=f"task/{task}", service="web", why="h2: no room")
        store.commit([Delete(keys.moves("web")), Put(keys.events("1"), encode([event]))])

    at_first_pause(lambda: schedulers("move.cancelled"))
    ran = sked("rebalance", "--wait", "--timeout", "60s")
    assert ran.code == 1 and "1 of 2 moves made" in ran.err and "of-web-web-1-3 stays: h2: no room" in ran.err
    sked("rebalance", "--apply")
    late = sked("rebalance", "--wait", "--timeout", "0.2s")
    assert late.code == 9 and "attach again:  sked rebalance --wait" in late.err and "which waits" in late.err
    at_first_pause(lambda: schedulers("move.done"))
    ran = sked("rebalance", "--wait", "--timeout", "60s")
    assert ran.code == 0 and "2 of 2 moves made" in ran.err


def test_programs_get_figures_and_moves(sked, up, running) -> None:
    up("h1", "h2")
    running("web", *["h1"] * 4)
    running("lonely", "h1", min=1, max=1)
    (item,) = json.loads(sked("rebalance", "-o", "json").out)["items"]
    assert [(one["task"], one["from"], one["to"]) for one in item["moves"]] == [
        ("of-web-web-1-3", "h1", "h2"),
        ("of-web-web-1-2", "h1", "h2"),
    ]
    assert (item["before"]["difference"], item["after"]["difference"]) == (4, 0)
    assert item["services"][0]["moves"] == 2 and item["left_out"][0]["service"] == "lonely"
    assert item["apply"].endswith(item["revision"]) and item["applied"] is False
    (item,) = json.loads(sked("rebalance", "-o", "json", "--apply").out)["items"]
    assert item["applied"] is True and item["apply"] == ""


def test_options_that_do_not_go_together_and_names_that_nobody_has_are_refused(sked, up, running) -> None:
    up("h1", "h2")
    running("web", "h1")
    assert sked("rebalance", "--cancel", "--apply").code == 2
    assert sked("rebalance", "--if-revision", "3").code == 2
    ran = sked("rebalance", "wed")
    assert ran.code == 4 and "did you mean web?" in ran.err
    assert sked("rebalance", "--host", "h9").code == 4
