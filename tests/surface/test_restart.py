"""``sked restart`` and ``sked stop``: what they ask of agents and schedulers, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sked_core.interfaces.store import Delete, Put
from sked_core.model import codec, keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Moves, Rollout, Task
from sked_core.runtime.health.probes import StoredHealth
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task


@pytest.fixture
def running(declare, issue) -> Callable[..., list[Task]]:
    """``running("h1", "h2")``: a declared service ``web`` with healthy tasks on these hosts."""

    def write(*hosts: str, port: int = 0, **fields: object) -> list[Task]:
        definition, cluster = a_definition("web", port=port, provide_port=not port), a_cluster(services=("web",))
        declare(cluster, definition, a_service("web", desired=len(hosts), **fields))
        tasks = [a_task(host, number, definition, cluster=cluster, port=port) for number, host in enumerate(hosts)]
        issue(*tasks, healthy=True)
        return tasks

    return write


def moves(store) -> Moves:
    return decode(store.read(keys.moves("web")).entries[keys.moves("web")].value, Moves)


def told(store, what: str) -> list[Event]:
    entries = sorted(store.read(keys.EVENTS).entries.items())
    return [event for _, entry in entries for event in decode(entry.value, list[Event]) if event.what == what]


def test_a_service_is_restarted_by_moves_of_its_tasks_to_where_they_are(sked, store, up, running, attended) -> None:
    up(h1=1000, h2=1000)
    running("h1", "h2")
    ran = sked("restart", "web", "--why", "new certificates")
    assert ran.code == 0 and ran.out == "service/web restarts: 2 tasks, step by step\n" and ran.err == ""
    assert [(one.task, one.source, one.to) for one in moves(store).moves] == [
        ("default-web-1-0", "h1", "h1"),
        ("default-web-1-1", "h2", "h2"),
    ]
    (event,) = told(store, "service.restarted")
    assert event.subject == "service/web" and event.why == "2 tasks: new certificates" and event.who
    again = sked("restart", "web")
    assert again.code == 5 and "sked rebalance web --cancel" in again.err
    assert sked("rebalance", "web", "--cancel").code == 0
    assert sked("restart", "service/web").code == 0


def test_where_no_scheduler_is_there_that_is_said(sked, up, running) -> None:
    up(h1=1000)
    running("h1")
    assert "no process is there that places by default" in sked("restart", "web").err


def test_a_task_beside_which_there_is_no_room_is_replaced_on_another_host_or_left_out(sked, store, up, running) -> None:
    up(h1=1000)
    running("h1", port=80, min=1, max=2)
    ran = sked("restart", "web")
    assert ran.code == 5 and "no task of web can be restarted" in ran.err and "port 80" in ran.err
    up(h2=1000)
    ran = sked("restart", "web")
    assert ran.code == 0 and "default-web-1-0 goes to h2: h1 can't take another one beside it" in ran.err
    assert moves(store).moves[0].to == "h2"


def test_where_tasks_may_go_first_they_are_restarted_where_they_are_without_room_beside(sked, store, up, running):
    up(h1=1000, h2=1000, h3=1000)
    running("h1", "h2", port=80, min=1)
    assert sked("restart", "web").code == 0
    assert [one.to for one in moves(store).moves] == ["h1", "h2"]


def test_what_can_never_be_replaced_is_refused_with_the_edit_to_make(sked, store, up, running) -> None:
    up(h1=1000)
    running("h1", min=1, max=1)
    ran = sked("restart", "web")
    assert ran.code == 5 and "raise max to 2" in ran.err and "sked restart TASK" in ran.err
    assert not store.read(keys.MOVES).entries


def test_a_roll_out_under_way_replaces_the_tasks_anyhow(sked, store, up, running) -> None:
    up(h1=1000)
    running("h1")
    store.commit([Put(keys.rollout("web"), encode(Rollout(number=1, task_name="web", task_version=2)))])
    ran = sked("restart", "web")
    assert ran.code == 5 and "sked rollout status web" in ran.err


def test_a_task_is_restarted_by_a_number_in_both_of_its_records_and_nothing_else_changes(sked, store, up, running):
    up(h1=1000)
    (task,) = running("h1")
    both = [keys.task(task.id), keys.host_task("h1", task.id)]
    strange = codec.patch(encode(task), color="green")
    store.commit([Put(key, strange) for key in both])
    for number in (1, 2):
        assert sked("restart", task.id).out == f"task/{task.id} restarts on h1\n"
        values = {store.read(key).entries[key].value for key in both}
        assert values == {codec.patch(strange, restarts=number)}
    assert [event.subject for event in told(store, "task.restarted")] == [f"task/{task.id}"] * 2
    assert keys.changed("web") in store.read(keys.CHANGED).entries


def test_a_restart_changes_what_is_compared_with_what_runs_and_never_having_been_restarted_does_not() -> None:
    task = a_task("h1", 0)
    digests = [codec.digest(decode(codec.patch(encode(task), restarts=number), Task)) for number in (0, 1, 2)]
    assert digests[0] == codec.digest(task) == "ab3051208d176334" and len(set(digests)) == 3


def test_a_task_written_by_hand_for_a_host_alone_is_restarted_and_stopped_there(sked, store, up, task) -> None:
    up(h1=1000)
    one = task(host="h1")
    store.commit([Put(keys.host_task("h1", one.id), encode(one))])
    assert sked("restart", one.id).code == 0 and sked("stop", one.id, "-y").code == 0
    stored = decode(store.read(keys.host_task("h1", one.id)).entries[keys.host_task("h1", one.id)].value, Task)
    assert stored.restarts == 1 and not stored.scheduled
    assert keys.task(one.id) not in store.read(keys.TASKS).entries


def test_a_task_of_a_host_whose_agent_is_gone_restarts_once_it_is_back(sked, up, running, store) -> None:
    up(h1=1000)
    (task,) = running("h1")
    store.commit([Delete(keys.live("h1"))])
    ran = sked("restart", task.id)
    assert ran.code == 0 and "it restarts it once it is back" in ran.err


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"scheduled": False}, "is being stopped"), ({"rejected": True, "reject_reason": "no disk"}, "no disk")],
)
def test_what_does_not_run_and_is_not_to_cannot_be_restarted(sked, issue, task, fields, why) -> None:
    one = task(**fields)
    issue(one)
    ran = sked("restart", one.id)
    assert ran.code == 5 and why in ran.err


def test_names_that_nobody_has_are_not_found_and_those_of_both_kinds_are_told_apart(sked, store, up, running, declare):
    up(h1=1000)
    (task,) = running("h1")
    ran = sked("restart", "wob")
    assert ran.code == 4 and "did you mean web?" in ran.err
    assert sked("stop", "default-web-1-9", "-y").code == 4
    assert sked("restart", "host/h1").code == 2
    declare(a_service(task.id))
    ran = sked("restart", task.id)
    assert ran.code == 2 and f"task/{task.id}" in ran.err
    assert sked("restart", f"task/{task.id}").code == 0


def test_a_task_is_stopped_in_both_records_and_it_is_said_who_places_another_one(sked, store, up, running, attended):
    up(h1=1000)
    (task,) = running("h1")
    refused = sked("stop", task.id)
    assert refused.code == 2 and "add -y" in refused.err
    ran = sked("stop", task.id, "-y", "--why", "its disk is slow")
    assert ran.code == 0 and ran.out == f"task/{task.id} is being stopped on h1\n"
    assert "scheduler default places another one" in ran.err
    values = [store.read(key).entries[key].value for key in (keys.task(task.id), keys.host_task("h1", task.id))]
    assert values[0] == values[1] and not decode(values[0], Task).scheduled
    (event,) = told(store, "task.withdrawn")
    assert (event.subject, event.host, event.why) == (f"task/{task.id}", "h1", "its disk is slow")
    assert sked("stop", task.id, "-y").out == f"task/{task.id} unchanged: it is being stopped already\n"


def test_where_the_service_is_gone_nothing_takes_the_place_of_a_stopped_task(sked, store, up, running) -> None:
    up(h1=1000)
    (task,) = running("h1")
    store.commit([Delete(keys.service("web"))])
    assert "nothing takes its place" in sked("stop", task.id, "-y").err


def test_a_wait_ends_once_the_agent_has_started_the_task_and_it_is_healthy(
    sked, store, up, running, at_first_pause
) -> None:
    up(h1=1000)
    (task,) = running("h1")

    def started() -> None:
        event = Event(at="", who="agent h1", what="task.started", subject=f"task/{task.id}", host="h1")
        store.commit([Put(keys.events("9"), encode([event]))])

    at_first_pause(started)
    ran = sked("restart", task.id, "--wait", "--timeout", "60s")
    assert ran.code == 0 and f"{task.id} is healthy again" in ran.err
    health = StoredHealth(False, "no answer", "default", "web")
    store.commit([Put(keys.health("h1", task.id), encode(health))])
    late = sked("restart", task.id, "--wait", "--timeout", "0.2s")
    assert late.code == 9 and "is not healthy after 0.2 s" in late.err
    assert late.err.endswith(f"  attach again:  sked explain {task.id} -w\n")


def test_a_wait_for_a_service_whose_restart_was_given_up_fails_with_the_reason(
    sked, store, up, running, at_first_pause
) -> None:
    up(h1=1000)
    running("h1")

    def gives_up() -> None:
        event = Event(at="", who="s", what="move.cancelled", subject="task/default-web-1-0", why="h1: no room")
        store.commit([Delete(keys.moves("web")), Put(keys.events("9"), encode([event]))])

    at_first_pause(gives_up)
    ran = sked("restart", "web", "--wait", "--timeout", "60s")
    assert ran.code == 1 and "0 of 1 restart made" in ran.err and "default-web-1-0 stays: h1: no room" in ran.err


def test_programs_see_the_number_of_restarts(sked, up, running) -> None:
    up(h1=1000)
    (task,) = running("h1")
    sked("restart", task.id)
    (item,) = json.loads(sked("tasks", "-o", "json").out)["items"]
    assert item["restarts"] == 1
