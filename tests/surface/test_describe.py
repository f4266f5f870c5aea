"""``sked describe``: one object on one screen, of every kind."""

from __future__ import annotations

import json

import pytest
import yaml
from msgspec.structs import replace

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure, Mark, Rollout
from surface.test_stories import an_ending, tell
from surface.test_stories import an_event as told


@pytest.fixture
def web(store, running, up):
    """The service web with two tasks, of which one fails; an ending and some events."""
    up(h1=1000, h2=2000)
    tasks = running("web", "h1", "h2", memory=300)
    failure = Failure(host="h2", attempts=3, reason="web: exit 1")
    store.commit([Put(keys.failure(tasks[1].id), encode(failure))])
    store.commit(
        [Put(keys.ending("h2", 0), encode(an_ending(tasks[1], host="h2", service="web", reason="web: exit 1")))]
    )
    subject = f"task/{tasks[1].id}"
    tell(store, told("task.failed", ago=10, subject=subject, service="web", host="h2", why="web: exit 1"))
    return tasks


def test_a_service_with_its_tasks_the_failing_ones_first_its_ends_and_events(sked, web):
    ran = sked("describe", "service/web")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "service web"
    for piece in ("runs", "desired", "min 2, max 3", "clusters:", "tasks:", "failing:", "ends of tasks:", "events:"):
        assert piece in ran.out
    at = lines.index("tasks:")
    assert [line.split()[0] for line in lines[at + 2 : at + 4]] == [web[0].id, web[1].id]
    assert "  sked explain web" in lines


def test_a_service_that_is_rolled_out_and_locked_says_so(sked, store, web):
    store.commit(
        [Put(keys.rollout("web"), encode(Rollout(number=2, task_name="web", task_version=1, from_name="web")))]
    )
    store.commit([Put(keys.service_lock("web"), b"s-1 since 2026-11-29T16:20:05Z")])
    ran = sked("describe", "service/web").out
    assert "web: roll-out 2, version 0 -> 1, running" in ran
    assert "s-1 since 2026-11-29T16:20:05Z" in ran


def test_of_many_tasks_those_that_are_not_well_are_shown_and_the_rest_counted(sked, running, issue, task, up):
    up(h1=10**6)
    tasks = running("web", *["h1"] * 30)
    issue(tasks[27], healthy=False)
    ran = sked("describe", "service/web").out
    assert tasks[27].id in ran
    assert "and 10 more tasks: sked tasks" in ran


def test_a_host_with_what_is_reserved_and_who_marked_it(sked, store, web):
    store.commit([Put(keys.mark("h1"), encode(Mark("cordoned", by="alice", why="new kernel")))])
    ran = sked("describe", "host/h1").out
    assert "300 of 1000 MB reserved" in ran
    assert "cordoned by alice : new kernel" in ran or "cordoned by alice" in ran
    assert web[0].id in ran


def test_a_cluster_with_its_services(sked, web):
    ran = sked("describe", "cluster/of-web").out
    assert "every host" in ran
    assert [line.split()[:3] for line in ran.splitlines() if line.startswith("  web")] == [["web", "2", "2"]]


def test_a_task_and_one_that_is_gone(sked, store, web):
    here = sked("describe", f"task/{web[1].id}").out
    assert f"{web[1].id} fails on h2" in here or "healthy on h2" in here
    assert "container web" in here
    gone = replace(an_ending(web[0], host="h1"), task="of-web-web-9-9")
    store.commit([Put(keys.ending("h1", 3), encode(gone))])
    ran = sked("describe", "task/of-web-web-9-9")
    assert (ran.code, "of-web-web-9-9 is gone" in ran.out) == (0, True)


def test_a_task_definition_in_every_version(sked, web, declare):
    for target in ("task_definition/web", "task_definition/web/1"):
        ran = sked("describe", target)
        assert (ran.code, ran.out.splitlines()[0]) == (0, "task_definition web")
        assert "memory 300 MB" in ran.out
    assert sked("describe", "task_definition/web/7").code == 4


def test_a_rollout(sked, store, web):
    store.commit(
        [Put(keys.ended_rollout("web", 1), encode(Rollout(number=1, task_name="web", task_version=1, by="al")))]
    )
    ran = sked("describe", "rollout/web")
    assert (ran.code, "roll-out 1" in ran.out) == (0, True)
    assert "no roll-out yet" not in ran.out


@pytest.mark.parametrize(
    "target", ["service/web", "cluster/of-web", "host/h1", "task_definition/web/1", "rollout/web", "task"]
)
def test_programs_get_all_of_it_in_json_and_yaml(sked, web, target):
    target = f"task/{web[0].id}" if target == "task" else target
    found = json.loads(sked("describe", target, "-o", "json").out)
    assert (found["kind"], len(found["items"])) == ("DescriptionList", 1)
    assert found["items"][0]["kind"] == target.partition("/")[0]
    assert found["items"][0]["name"]
    assert yaml.safe_load(sked("describe", target, "-o", "yaml").out) == found


@pytest.mark.parametrize(
    ("target", "code", "hint"),
    [
        ("service/wbe", 4, "did you mean web?"),
        ("cluster/of-wbe", 4, "did you mean of-web?"),
        ("host/h3", 4, "`sked hosts` lists the hosts"),
        ("task/of-web-web-1-7", 4, "did you mean"),
        ("task_definition/wbe", 4, "did you mean web?"),
        ("rollout/wbe", 4, "did you mean web?"),
        ("service/", 2, "service/NAME"),
        ("servce/web", 2, 'there is no kind servce, did you mean "service"?'),
        ("hosts/h1", 2, "kinds are service/NAME, cluster/NAME, host/NAME, task/NAME"),
        ("pot/web", 2, "service/NAME"),
        ("service/../x", 4, ""),
    ],
)
def test_what_is_not_there_is_not_found_with_what_is_like_it(sked, web, target, code, hint):
    ran = sked("describe", target)
    assert (ran.code, ran.out) == (code, "")
    assert hint in ran.err
