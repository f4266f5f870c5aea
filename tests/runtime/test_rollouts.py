"""How schedulers take a roll-out further: on a store whose hosts' agents are web by the test."""

from __future__ import annotations

import itertools
import json

import pytest
from msgspec.structs import replace

from runtime.stage import Stage
from runtime.web_play import WebPlay
from sked_core.interfaces.store import Delete, Entry, Op, Put, Revision
from sked_core.logic.plan import Issued
from sked_core.logic.presence import Rejections
from sked_core.logic.world import no_ports
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Failure, Rollout, Service, ServiceStatus, UpdatePolicy
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_check, a_cluster, a_container, a_definition, a_host, a_service, a_task


class Play(WebPlay):
    """A service ``web`` with three tasks of version 1 that are healthy, and the agents of its hosts."""

    def __init__(self, stage: Stage, **fields: object) -> None:
        self.stage, self.fields = stage, {"desired": 3, "min": 2, "max": 4, **fields}
        stage.hosts("h1", "h2", "h3")
        for version in (1, 2, 3):
            container = a_container(checks=[a_check()])
            definition = a_definition("web", version, containers=[container])
            self.write(keys.task_definition("web", version), definition)
        self.write(keys.cluster("default"), a_cluster())
        self.declare(1)
        self.loop = stage.scheduler()
        self.settle()
        assert self.versions() == {1: 3}

    def declare(self, version: int, **fields: object) -> None:
        self.write(keys.service("web"), a_service(version=version, **{**self.fields, **fields}))

    def versions(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for task in self.stage.tasks().values():
            found[task.task_definition.version] = found.get(task.task_definition.version, 0) + 1
        return found

    def rollout(self) -> Rollout | None:
        entry = self.stage.memory.read(keys.rollout("web")).entries.get(keys.rollout("web"))
        return decode(entry.value, Rollout) if entry else None

    def edit(self, **changes: object) -> None:
        key = keys.rollout("web")
        stored = json.loads(self.stage.memory.read(key).entries[key].value)
        self.stage.memory.commit([Put(key, json.dumps(stored | changes).encode())])

    def history(self) -> list[Rollout]:
        entries = self.stage.memory.read(keys.rollout_history("web")).entries
        return [decode(entries[key].value, Rollout) for key in sorted(entries)]

    def blocked(self) -> str:
        entry = self.stage.memory.read(keys.service_status("web")).entries[keys.service_status("web")]
        return decode(entry.value, ServiceStatus).clusters["default"].blocked

    def told(self) -> list[str]:
        events = [
            decode(entry.value, list[Event]) for _, entry in sorted(self.stage.memory.read(keys.EVENTS).entries.items())
        ]
        return [event.what for some in events for event in some]

    def wanted(self) -> int:
        entry = self.stage.memory.read(keys.service("web")).entries[keys.service("web")]
        return decode(entry.value, Service).task_version

    def unwell(self, version: int = 2) -> None:
        """No task of this version is ever healthy."""
        for instance in range(6):
            self.stage.health.say(f"default-web-{version}-{instance}", healthy=False, output="500")

    def reject(self, version: int) -> int:
        """Every host rejects its tasks of this version; returns how many there were to reject."""
        ops: list[Op] = []
        for key, task in self.stage.tasks().items():
            if task.task_definition.version == version and task.scheduled and not task.rejected:
                refused = encode(replace(task, rejected=True, reject_reason="no such image"))
                both = (keys.task(key), keys.host_task(task.host, key))
                ops += [*(Put(one, refused) for one in both), marker("web", task.host)]
        if ops:
            self.stage.memory.commit(ops)
        return len(ops) // 3


@pytest.fixture
def play(stage: Stage):
    return lambda **fields: Play(stage, **fields)


def test_a_changed_declaration_is_rolled_out_and_stands_in_the_history(play):
    web = play()
    web.declare(2)
    web.step()
    rollout = web.rollout()
    assert (rollout.number, rollout.from_version, rollout.task_version, rollout.state) == (1, 1, 2, "running")
    assert rollout.by == "scheduler s0" and rollout.why == "the declaration was changed" and rollout.at
    web.settle()
    assert web.versions() == {2: 3} and web.rollout() is None
    assert [(one.number, one.result, one.progress) for one in web.history()] == [(1, "succeeded", {"default": 3})]
    assert {"rollout.started", "task.issued", "task.withdrawn", "rollout.succeeded"} <= set(web.told())


def test_a_new_task_has_to_stay_healthy_for_a_while_before_the_next_step(play):
    web = play(update=UpdatePolicy(healthy_for="30s"))
    web.declare(2)
    web.settle(10)
    assert web.versions() == {1: 3, 2: 1}
    assert "to have been healthy for long enough" in web.blocked()
    web.settle(25)
    assert web.versions()[2] == 2


def test_canaries_come_first_and_the_rest_waits_for_a_promotion(play):
    web = play(update=UpdatePolicy(canaries=1))
    web.declare(2)
    web.settle(900)
    assert web.versions() == {1: 3, 2: 1}
    assert "sked rollout promote web" in web.blocked()
    web.edit(promoted=True)
    web.settle()
    assert web.versions() == {2: 3}
    assert web.history()[0].result == "succeeded"


def test_canaries_are_promoted_after_a_time(play):
    web = play(update=UpdatePolicy(canaries=1, promote_after="60s"))
    web.declare(2)
    web.settle(50)
    assert web.versions() == {1: 3, 2: 1}
    web.settle(40)
    assert web.versions() == {2: 3}
    assert "rollout.promoted" in web.told()


def test_a_canary_that_is_well_now_and_then_fails_at_last(play):
    web = play(update=UpdatePolicy(canaries=1, promote_after="20s", progress_deadline="30s"))
    web.declare(2)
    for _ in range(6):
        web.stage.health.say("default-web-2-0", healthy=True)
        web.settle(10)
        assert web.versions() == {1: 3, 2: 1}
        web.unwell()
        web.settle(10)
    assert web.rollout().state == "failed" and "no progress for 30 s" in web.rollout().reason


def test_a_canary_takes_the_place_of_an_old_task_where_max_leaves_no_room(play):
    web = play(max=3, update=UpdatePolicy(canaries=1))
    web.declare(2)
    web.settle()
    assert web.versions() == {1: 2, 2: 1}


def test_no_room_for_a_canary_is_said_with_the_remedy(play):
    web = play(min=3, max=3, update=UpdatePolicy(canaries=1))
    web.declare(2)
    web.settle()
    assert web.versions() == {1: 3}
    assert "raise max to 4" in web.blocked()


def test_a_paused_roll_out_makes_no_step_and_goes_on_when_it_is_resumed(play):
    web = play()
    web.declare(2)
    web.step()
    web.edit(state="paused")
    web.settle(900)
    assert sum(web.versions().values()) >= 3 and web.versions()[1] >= 2
    assert "sked rollout resume web" in web.blocked()
    before = web.versions()
    web.edit(state="running", waited=0)
    web.settle()
    assert before != web.versions() == {2: 3}


def test_a_task_that_is_lost_while_a_roll_out_is_paused_comes_back_in_its_former_version(play):
    web = play(max=5)
    web.declare(2)
    web.step()
    web.edit(state="paused")
    web.settle()
    stood = web.versions()
    lost = next(task for task in web.stage.tasks().values() if task.task_definition.version == 1)
    web.stage.memory.commit([Delete(keys.task(lost.id)), Delete(keys.host_task(lost.host, lost.id))])
    web.settle()
    assert web.versions() == {1: max(stood[1] - 1, 3 - stood.get(2, 0)), **{v: n for v, n in stood.items() if v != 1}}


def test_a_version_that_is_never_healthy_fails_after_the_deadline_and_old_tasks_stay(play):
    web = play(update=UpdatePolicy(progress_deadline="60s"))
    web.unwell()
    web.declare(2)
    web.settle(50)
    assert web.rollout().state == "running"
    web.settle(20)
    rollout = web.rollout()
    assert rollout.state == "failed" and "no progress for 60 s" in rollout.reason
    assert web.versions()[1] >= 2 and "sked rollout undo web" in web.blocked()


def test_a_version_that_fails_is_rolled_back_with_its_reason(play):
    web = play(update=UpdatePolicy(on_failure="rollback"))
    web.unwell()
    web.declare(2)
    web.settle(3)
    failing = next(task.id for task in web.stage.tasks().values() if task.task_definition.version == 2)
    web.write(keys.failure(failing), Failure(host="h1", attempts=3, reason="web: exit 1", log=["no such table"]))
    web.settle()
    assert web.wanted() == 1 and web.versions() == {1: 3}
    back, kept = web.history()[1], web.history()[0]
    assert kept.result == "rolled_back" and "exit 1" in kept.reason and "| no such table" in kept.reason
    assert (back.kind, back.task_version, back.result) == ("rollback", 1, "succeeded")
    assert {"rollout.failed", "rollout.rolled_back"} <= set(web.told())


def test_it_stands_still_where_what_it_would_go_back_to_was_deleted_and_says_so(play):
    web = play(update=UpdatePolicy(on_failure="rollback", progress_deadline="20s"))
    web.unwell()
    web.declare(2)
    web.settle(3)
    web.stage.memory.commit([Delete(keys.task_definition("web", 1))])
    web.settle(30)
    assert web.wanted() == 2 and web.versions()[1] == 3
    assert web.rollout().state == "failed"
    assert web.rollout().reason.splitlines()[1:] == ["not rolled back: there is no task definition web/1 any more"]


def test_what_has_failed_goes_on_at_once_when_its_failures_are_taken_away_and_it_is_resumed(play):
    web = play()
    web.declare(2)
    web.settle(2)
    web.unwell()
    failing = next(key for key, task in web.stage.tasks().items() if task.task_definition.version == 2)
    failure = Failure(host=web.stage.tasks()[failing].host, attempts=3, reason="web: exit 1")
    web.write(keys.failure(failing), failure)
    web.settle(3)
    assert web.rollout().state == "failed"
    web.stage.memory.commit([Delete(keys.failure(failing))])
    web.edit(state="running", reason="", waited=0)
    # No time goes by, and nobody says that health has changed: what was read before is not relied on.
    web.loop._feed.invalidate()
    web.loop.step()
    assert web.rollout().state == "running"


def test_a_version_that_every_host_rejects_fails_long_before_its_deadline(play):
    web = play()
    web.declare(2)
    for _ in range(30):
        web.step()
        web.reject(2)
    assert web.rollout().state == "failed" and "every host rejects it: no such image" in web.rollout().reason
    web.edit(state="running", reason="", waited=0)
    web.settle()
    assert web.versions() == {2: 3}


def test_a_version_that_was_taken_back_since_every_host_rejected_it_is_tried_again_when_it_is_rolled_out_again(play):
    web = play(update=UpdatePolicy(on_failure="rollback"))
    web.declare(2)
    for _ in range(30):
        web.step()
        web.reject(2)
    web.settle()
    assert web.versions() == {1: 3} and web.wanted() == 1
    web.declare(2)
    web.settle()
    assert web.versions() == {2: 3}


def test_what_is_rejected_after_a_roll_out_was_resumed_is_not_forgotten_with_what_was_before():
    rejections, key = Rejections(), keys.rollout("web")
    view = View(no_ports, rejections)
    definition, revisions = a_definition("web", 2), map(Revision, itertools.count(1))

    def noted(**fields: object) -> None:
        rollout = Rollout(task_name="web", task_version=2, **fields)
        view.take_rollouts({key: Entry(encode(rollout), next(revisions))})

    def rejected(*, version: int = 2) -> None:
        task = a_task("h1", 0, a_definition("web", version), rejected=True, reject_reason="no such image")
        rejections.update([Issued(task, next(revisions))], 0.0)

    for first, then in (
        ({"number": 1, "state": "failed"}, {"number": 1, "state": "running"}),
        ({"number": 1, "state": "running"}, {"number": 2, "state": "running"}),
    ):
        noted(**first)
        rejected()
        rejected(version=1)
        noted(**first, waited=1.0)
        assert rejections.avoided("web", definition, 0.1)
        noted(**then)
        assert not rejections.avoided("web", definition, 0.1)
        assert rejections.avoided("web", a_definition("web", 1), 0.1), "nobody asked for that one"
        rejected()
        noted(**then, waited=1.0)
        noted(**then | {"state": "paused"})
        assert rejections.avoided("web", definition, 0.1)


def test_canaries_of_a_service_that_had_no_tasks_are_all_there_is(play):
    web = play(update=UpdatePolicy(canaries=1))
    web.declare(1, desired=0, min=0)
    web.settle()
    assert not web.versions()
    web.declare(2)
    web.settle(3)
    assert web.versions() == {2: 3}


def test_the_time_without_progress_counts_on_when_the_scheduler_dies(play):
    web = play(update=UpdatePolicy(progress_deadline="100s"))
    web.unwell()
    web.declare(2)
    web.settle(60)
    assert web.rollout().waited >= 40
    web.loop._keeper.drop()
    web.stage.memory.commit([Delete(keys.scheduler("s0")), Delete(keys.service_lock("web"))])
    web.loop = web.stage.scheduler()
    web.settle(70)
    assert web.rollout().state == "failed"


def test_min_and_max_that_leave_no_room_end_in_a_failure_that_says_so(play):
    web = play(min=3, max=3, update=UpdatePolicy(progress_deadline="30s"))
    web.declare(2)
    web.settle(40)
    assert web.versions() == {1: 3}
    assert "min 3 and max 3 leave no room" in web.rollout().reason


def test_another_version_supersedes_what_is_under_way(play):
    web = play()
    web.unwell()
    web.declare(2)
    web.settle(5)
    web.declare(3)
    web.settle()
    assert web.versions() == {3: 3}
    assert [(one.task_version, one.from_version, one.result) for one in web.history()] == [
        (2, 1, "superseded"),
        (3, 1, "succeeded"),
    ]


def test_a_record_that_nobody_can_read_stops_the_roll_out_and_is_named(play):
    web = play()
    web.declare(2)
    web.stage.memory.commit([Put(keys.rollout("web"), b"{oops")])
    web.settle()
    assert web.versions() == {1: 3}
    assert "scheduling/rollouts/web can't be read" in web.blocked()
    web.stage.memory.commit([Delete(keys.rollout("web"))])
    web.settle()
    assert web.versions() == {2: 3}


def test_what_is_told_of_a_deleted_service_goes_with_it(play):
    web = play()
    web.declare(2)
    web.settle()
    assert web.history()
    web.stage.memory.commit([Delete(keys.service("web"))])
    web.settle()
    assert not web.stage.tasks() and not web.history() and web.rollout() is None


def test_a_drain_with_a_deadline_is_forced_once_that_has_passed(play):
    web = play(min=3, max=3)
    web.write(keys.mark("h1"), {"state": "draining", "deadline": 30.0})
    web.settle(20)
    assert sorted(task.host for task in web.stage.tasks().values()) == ["h1", "h2", "h3"]
    web.settle(20)
    assert "h1" not in [task.host for task in web.stage.tasks().values()]
    assert sum(web.versions().values()) == 3


def test_a_drain_gives_nothing_up_where_no_other_host_takes_it(play, stage):
    web = play(min=1)
    stage.memory.commit([Put(keys.host(name), encode(a_host(name, executors=[]).host)) for name in ("h2", "h3")])
    web.write(keys.mark("h1"), {"state": "draining"})
    web.settle()
    assert "h1" in [task.host for task in stage.tasks().values()]
