"""When a roll-out has succeeded, failed, or waits: pure cases."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from typing import Any

import pytest
from msgspec.structs import replace

from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import Fleet
from sked_core.logic.placement import spread
from sked_core.logic.plan import Goal, Hold, Issued, Plan
from sked_core.logic.reconcile import reconcile
from sked_core.logic.rollout import Part, deadline, former_definition, healthy_for, judge, reached, told, why_held
from sked_core.logic.rollout_start import begin
from sked_core.model.types import Failure, Rollout, Task, TaskId, UpdatePolicy
from sked_core.testing.builders import a_check, a_container, a_definition, a_goal, a_host, a_service, a_task, healthy

FINE = UpdatePolicy()
CANARY = UpdatePolicy(canaries=1)


def rollout(**fields: Any) -> Rollout:
    return Rollout(
        **{"number": 4, "task_name": "web", "task_version": 2, "from_name": "web", "from_version": 1, **fields}
    )


def part(
    *versions: int, steady: tuple[int, ...] = (), failures: dict[int, Failure] | None = None, **service: Any
) -> Part:
    """Tasks of ``versions``, of which those with the given places are steady or have failed."""
    tasks = [a_task(instance=n, definition=a_definition(version=v)) for n, v in enumerate(versions)]
    return Part(
        a_goal(a_service(version=2, **service)),
        [Issued(task, Revision(1)) for task in tasks],
        {tasks[n].id for n in steady},
        {tasks[n].id: failure for n, failure in (failures or {}).items()},
    )


def test_it_has_succeeded_when_all_is_new_and_steady_and_nothing_old_is_left():
    assert judge(rollout(), FINE, [part(2, 2, 2, steady=(0, 1, 2))], 0).result == "succeeded"
    assert not judge(rollout(), FINE, [part(2, 2, 2, steady=(0, 1))], 0).result
    assert not judge(rollout(), FINE, [part(2, 2, 2, 1, steady=(0, 1, 2, 3))], 0).result


def test_a_roll_out_of_two_clusters_has_succeeded_when_both_have():
    done, under_way = part(2, 2, 2, steady=(0, 1, 2)), part(2, 2, 1, steady=(0, 1, 2))
    assert not judge(rollout(), FINE, [done, under_way], 0).result


def test_a_failed_one_whose_tasks_became_well_after_all_has_succeeded():
    after = judge(rollout(state="failed", reason="slow"), FINE, [part(2, 2, 2, steady=(0, 1, 2))], 0)
    assert (after.result, after.state, after.reason) == ("succeeded", "running", "")


@pytest.mark.parametrize(
    ("failure", "fails"),
    [
        (Failure(host="h1", attempts=1, reason="exit 1"), False),
        (Failure(host="h1", attempts=2, reason="exit 1"), False),
        (Failure(host="h1", attempts=3, reason="exit 1"), True),
        (Failure(host="h1", attempts=1, unhealthy=True, reason="unhealthy for too long"), True),
    ],
)
def test_a_new_task_that_keeps_failing_fails_it(failure, fails):
    after = judge(rollout(), FINE, [part(2, 1, 1, failures={0: failure})], 0)
    assert (after.state == "failed") is fails
    assert not fails or "default-web-2-0 on h1" in after.reason


def test_an_old_task_that_fails_says_nothing_of_the_new_version():
    bad = Failure(host="h1", attempts=9, reason="exit 1")
    assert judge(rollout(), FINE, [part(2, 1, 1, failures={1: bad})], 0).state == "running"


@pytest.mark.parametrize("reason", ["gave up after 2 starts: exit 1", "unhealthy again after a restart: 500"])
def test_a_rejection_that_is_the_tasks_own_fault_fails_it(reason):
    looked = part(2, 1, 1)
    rejected = replace(looked.issued[0].task, rejected=True, reject_reason=reason)
    looked = Part(looked.goal, [Issued(rejected, Revision(1)), *looked.issued[1:]])
    after = judge(rollout(), FINE, [looked], 0)
    assert (after.state, after.reason) == ("failed", f"default-web-2-0 on h1: {reason}")
    last = Failure(host="h1", attempts=2, reason="exit 1", output="connection refused", log=["one", "two"])
    looked = replace_fields(looked, failures={rejected.id: last})
    evidence = f"default-web-2-0 on h1: {reason}\ncheck: connection refused\n| one\n| two"
    assert judge(rollout(), FINE, [looked], 0).reason == evidence
    moved = replace(rejected, reject_reason="port 80 is taken on this host")
    assert judge(rollout(), FINE, [Part(looked.goal, [Issued(moved, Revision(1))])], 0).state == "running"


def test_no_progress_for_too_long_fails_it_with_what_blocked_it():
    policy = UpdatePolicy(progress_deadline="30s")
    assert judge(rollout(), policy, [part(2, 1, 1)], 29.9).state == "running"
    after = judge(rollout(), policy, [part(2, 1, 1)], 30.0, "no room")
    assert (after.state, after.reason) == ("failed", "no progress for 30 s: no room")


def test_where_all_is_well_but_for_what_does_not_stop_the_failure_names_it():
    looked = part(2, 2, 2, 1, steady=(0, 1, 2))
    leaving = replace(looked.issued[3].task, scheduled=False)
    looked = Part(looked.goal, [*looked.issued[:3], Issued(leaving, Revision(1))], looked.steady)
    after = judge(rollout(), UpdatePolicy(progress_deadline="30s"), [looked], 30.0)
    assert after.reason == "no progress for 30 s: waiting for default-web-1-3 to be stopped on h1"


def test_canaries_that_wait_for_a_person_have_no_deadline():
    waiting = part(2, 1, 1, steady=(0, 1, 2))
    assert deadline(rollout(), CANARY, [waiting]) == float("inf")
    assert judge(rollout(), CANARY, [waiting], 10**9).state == "running"
    assert "sked rollout promote web" in why_held("web", rollout(), CANARY, [waiting])
    ill = part(2, 1, 1)
    assert judge(rollout(), CANARY, [ill], 601).state == "failed"


def test_canaries_are_promoted_once_they_were_well_for_long_enough():
    policy, waiting = UpdatePolicy(canaries=1, promote_after="60s"), part(2, 1, 1, steady=(0,))
    assert not judge(rollout(), policy, [waiting], 59).promoted
    assert judge(rollout(), policy, [waiting], 60).promoted


def test_going_back_knows_no_canaries():
    assert not why_held("web", rollout(kind="undo"), CANARY, [part(1, 1, 1)])
    assert why_held("web", rollout(), CANARY, [part(1, 1, 1)])


def test_a_paused_one_is_left_alone_whatever_happens():
    bad = Failure(host="h1", attempts=9, reason="exit 1")
    paused = rollout(state="paused", progress={"default": 0})
    assert judge(paused, FINE, [part(2, 1, 1, failures={0: bad})], 10**6) == paused


def test_progress_is_each_new_task_that_became_steady_and_each_old_one_that_went():
    before = reached(rollout(), FINE, [part(2, 1, 1, 1)])
    assert reached(rollout(), FINE, [part(2, 1, 1, 1, steady=(0,))]).beyond(before)
    assert reached(rollout(), FINE, [part(2, 1, 1)]).beyond(before)
    assert not reached(rollout(), FINE, [part(2, 1, 1, 1)]).beyond(before)
    assert reached(rollout(promoted=True), FINE, [part(2, 1, 1, 1)]).beyond(before)


def test_a_task_that_becomes_steady_again_is_no_progress():
    ill, well = part(2, 2, 1, 1), part(2, 2, 1, 1, steady=(0,))
    best = reached(rollout(), FINE, [well])
    again = reached(rollout(), FINE, [ill]).since(best)
    assert not again.beyond(best)
    assert not reached(rollout(), FINE, [well]).beyond(again)
    assert reached(rollout(), FINE, [part(2, 2, 1, 1, steady=(1,))]).beyond(again)


def test_tasks_without_checks_have_to_run_for_a_while():
    checked = a_definition(containers=[a_container(checks=[a_check()])])
    assert healthy_for(FINE, checked) == 0.0
    assert healthy_for(FINE, a_definition()) == 5.0
    assert healthy_for(UpdatePolicy(healthy_for="1m"), checked) == 60.0


def test_a_failure_is_told_with_its_check_and_its_last_lines():
    text = told("t", Failure(host="h1", attempts=3, reason="web: exit 1", output="503", log=["a", "b"]))
    assert text.splitlines() == ["t on h1: web: exit 1 (3 starts)", "check: 503", "| a", "| b"]


def test_the_former_definition_is_the_one_that_most_others_have_where_none_is_known():
    looked = part(2, 1, 1, 0)
    assert former_definition(rollout(), [looked], None) == a_definition(version=1)
    assert former_definition(rollout(), [part(2, 2)], None) is None


# --- what reconcile makes of a roll-out that is held -------------------------------------------------------


def plan(goal: Goal, tasks: list[Task], ill: tuple[TaskId, ...] = (), **hosts: Any) -> list[str]:
    return [str(change) for change in planned(goal, tasks, ill, **hosts).changes]


def blocked(goal: Goal, tasks: list[Task], ill: tuple[TaskId, ...] = ()) -> str:
    return planned(goal, tasks, ill).blocked


def planned(goal: Goal, tasks: list[Task], ill: tuple[TaskId, ...] = (), **hosts: Any) -> Plan:
    views = [a_host("h1", **hosts), a_host("h2")]
    return reconcile(
        goal,
        [Issued(task, Revision(1)) for task in tasks],
        fleet=Fleet(views, tasks),
        health=healthy(*(task.id for task in tasks if task.id not in ill)),
        scheduler=spread(),
        avoid={},
    )


def held(ahead: int | None, **service: Any) -> Goal:
    hold = Hold(ahead, a_definition(version=1), "held")
    return a_goal(a_service(version=2, desired=3, min=2, max=4, **service), hold=hold)


def two_canaries(**service: Any) -> Goal:
    return a_goal(a_service(version=2, desired=3, **service), hold=Hold(2, a_definition(version=1), "held"))


def of(*versions: int, host: str = "h2") -> list[Task]:
    return [a_task(host, instance=n, definition=a_definition(version=v)) for n, v in enumerate(versions)]


def test_held_makes_no_step():
    assert plan(held(None), of(1, 1, 1, 2)) == []
    assert plan(held(None), of(1, 1, 2)) == []


def test_a_canary_is_issued_beside_what_runs():
    assert plan(held(1), of(1, 1, 1)) == ["issue default-web-2-0 to h1"]
    assert plan(held(1), of(1, 1, 1, 2)) == []


def test_what_is_missing_comes_back_in_the_former_version():
    assert plan(held(None), of(1, 2)) == ["issue default-web-1-1 to h1"]


def test_a_bad_new_task_does_not_keep_a_draining_host_from_being_emptied():
    tasks = [
        *of(1, 1),
        a_task("h1", instance=2, definition=a_definition(version=1)),
        a_task("h2", instance=3, definition=a_definition(version=2)),
    ]
    bad = tasks[3].id
    assert plan(held(None), tasks, ill=(bad,), mark="draining") == ["withdraw default-web-1-2 from h1"]


def test_where_max_was_lowered_a_bad_new_task_goes_before_well_ones_that_min_needs():
    tasks = of(1, 1, 2, 2)
    bad = (tasks[2].id, tasks[3].id)
    narrow = a_goal(a_service(version=2, desired=2, min=2, max=2), hold=Hold(None, a_definition(version=1), "held"))
    assert sorted(plan(narrow, tasks, ill=bad)) == [
        "withdraw default-web-2-2 from h2",
        "withdraw default-web-2-3 from h2",
    ]
    loose = a_goal(a_service(version=2, desired=3, min=1, max=3), hold=Hold(None, a_definition(version=1), "held"))
    assert plan(loose, tasks, ill=bad) == ["withdraw default-web-1-1 from h2"]


def test_the_second_canary_waits_for_the_first_and_says_so():
    goal = two_canaries(min=3, max=4)
    tasks = of(1, 1, 1, 2)
    assert blocked(goal, tasks, ill=(tasks[3].id,)) == "held"
    assert plan(goal, tasks) == ["withdraw default-web-1-2 from h2"]
    assert "raise max to 4" in blocked(two_canaries(min=3, max=3), of(1, 1, 1))


def test_where_there_were_no_tasks_there_are_no_canaries_either():
    after = a_service(version=2, desired=3)
    started, _ = begin(a_service(version=1, desired=0), after, None, 0, by="a", why="", at="")
    assert started.promoted
    started, _ = begin(a_service(version=1, desired=1), after, None, 0, by="a", why="", at="")
    assert not started.promoted
