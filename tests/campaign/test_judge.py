"""Each rule finds what it is for: a good history passes, and each broken one is found by the rule that it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from campaign.judge import Judge, Terms, judge
from campaign.samples import Instance, Note, Sample, Stored
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Container, Failure, Rollout, Service, Task, TaskDefinition

HOSTS, STEP = ("a", "b"), 0.2
UID = b"the store"


@dataclass
class World:
    """What is true, and the history of it so far. It begins with three tasks that run on ``a``."""

    at: float = 1000.0
    revision: int = 10
    store: dict[str, Stored] = field(default_factory=dict)
    instances: set[Instance] = field(default_factory=set)
    ended: set[Instance] = field(default_factory=set)
    history: list[Sample] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    away: bool = False
    nonce: int = 0

    def __post_init__(self) -> None:
        self.put(keys.STORE_UID, UID)
        self.put(
            keys.SERVICES + "web",
            codec.encode(Service(name="web", task_name="web", task_version=1, desired=3, min=3, max=4)),
        )
        self.put(keys.SCHEDULERS + "s", b"{}", lease="s-lease")
        for host in HOSTS:
            self.put(keys.HOSTS + host, b"{}")
            self.put(keys.LIVE + host, b"{}", lease=host)
        for number in range(3):
            self.issue(number)
            self.begin(number)
        self.go(2)

    def put(self, key: str, value: bytes, *, lease: str = "", again: bool = True) -> None:
        self.revision += again
        created = self.store[key].created if key in self.store else self.revision
        self.store[key] = Stored(value, self.revision, created, lease)

    def issue(
        self, number: int, *, host: str = "a", port: int = 0, told: bool = True, id_of: int | None = None, **more: Any
    ) -> str:
        task = Task(
            cluster=Cluster(name="default", services=["web"]),
            task_definition=TaskDefinition(name="web", version=1, containers=[Container(name="web", type="bash")]),
            service="web", instance=number if id_of is None else id_of, port=port or 20000 + number, host=host, **more,
        )  # fmt: skip
        name = f"default-web-1-{number}"
        value = codec.encode(task)
        self.put(keys.TASKS + name, value)
        self.put(f"{keys.HOST_TASKS}{host}/{name}", value, again=False)
        if told:
            self.event("task.issued", subject=f"task/{name}", again=False)
        return name

    def event(self, what: str, *, who: str = "scheduler s", again: bool = True, **more: str) -> None:
        self.put(
            f"{keys.EVENTS}{self.revision + again}-{what}",
            json.dumps([{"what": what, "who": who, **more}]).encode(),
            again=again,
        )

    def withdraw(self, number: int, host: str = "a") -> None:
        name = f"default-web-1-{number}"
        for key in (keys.TASKS + name, f"{keys.HOST_TASKS}{host}/{name}"):
            del self.store[key]
        self.revision += 1

    def begin(self, number: int, host: str = "a", *, container: bool = False) -> Instance:
        self.nonce += 1
        name = f"default-web-1-{number}"
        mark = f"c{self.nonce}" if container else f"scope/{name}/web/digest/{self.nonce}"
        one = Instance(host, name, "web", mark, (self.nonce, self.nonce))
        self.instances.add(one)
        return one

    def end(self, number: int) -> Instance:
        one = next(one for one in self.instances if one.task.endswith(f"-{number}"))
        self.instances.remove(one)
        return one

    def go(self, samples: int = 1, *notes: tuple[str, str], late: float = 0.0) -> None:
        """So many looks pass; ``late``: the seconds that each came after it was due."""
        for _ in range(samples):
            self.at += STEP + late
            said = tuple(Note(self.at, *note) for note in notes)
            notes = ()
            sample = Sample(
                at=self.at, store=None if self.away else dict(self.store), revision=self.revision,
                instances=frozenset(self.instances), ended=frozenset(self.ended), notes=said,
                **{"leases": 3, "processes": {"a": 1, "b": 2, "s": 3}, **self.more},
            )  # fmt: skip
            self.history.append(sample)


def desired(world: World, count: int) -> None:
    world.put(
        keys.SERVICES + "web",
        codec.encode(Service(name="web", task_name="web", task_version=1, desired=count, min=0, max=4)),
    )


BROKEN: dict[str, Callable[[World], None]] = {}


def breaks(rule: str) -> Callable[[Callable[[World], None]], None]:
    def register(spoil: Callable[[World], None]) -> None:
        BROKEN[f"{rule}: {spoil.__name__.strip('_').replace('_', ' ')}"] = spoil

    return register


@breaks("A1")
def a_task_ends_and_nobody_wanted_it(world: World) -> None:
    world.end(0)
    world.go(2)


@breaks("A1")
def a_task_ends_since_the_store_is_empty(world: World) -> None:
    world.store = {}
    world.go(2)
    world.end(0)
    world.go(2)
    world.store = dict(world.history[1].store or {})
    world.go(2)


@breaks("A2")
def a_task_ends_in_an_outage(world: World) -> None:
    world.away = True
    world.go(40, ("outage", ""))
    world.end(0)
    world.go()


@breaks("A2")
def a_task_is_started_anew_in_an_outage(world: World) -> None:
    world.away = True
    world.go(40, ("outage", ""))
    world.end(0)
    world.begin(0)
    world.go()


@breaks("A3")
def a_task_ends_with_its_agent(world: World) -> None:
    world.go(40, ("down", "a"))
    world.end(0)
    world.go()


@breaks("A3")
def a_task_begins_without_an_agent(world: World) -> None:
    world.go(60, ("down", "a"))
    world.issue(3)
    world.begin(3)
    world.go()


@breaks("A4")
def a_new_agent_starts_what_it_has_not_read(world: World) -> None:
    world.go(2, ("down", "a"), ("mortal", "web"))
    world.end(0)
    world.away = True
    world.go(2, ("outage", ""), ("up", "a"))
    world.begin(0)
    world.go()


@breaks("A5")
def a_task_runs_twice(world: World) -> None:
    world.begin(0)
    world.go()


@breaks("A6")
def a_task_runs_that_is_not_issued(world: World) -> None:
    world.begin(7)
    world.go(500)


@breaks("A6")
def a_stranger_goes(world: World) -> None:
    world.more["containers"] = frozenset({"stranger"})
    world.go(2, ("stranger", "stranger"))
    world.more["containers"] = frozenset()
    world.go()


@breaks("A7")
def an_innocent_is_killed(world: World) -> None:
    world.more["innocents"] = frozenset({(1, 1)})
    world.go(2, ("innocent", "1 1"))
    world.more["innocents"] = frozenset()
    world.go()


@breaks("A8")
def a_process_is_left_of_what_is_gone(world: World) -> None:
    desired(world, 2)
    world.issue(0, scheduled=False)
    world.go(2)
    world.withdraw(0)
    world.go(20)


@breaks("A8")
def a_stop_takes_for_ever(world: World) -> None:
    desired(world, 2)
    world.issue(0, scheduled=False)
    world.go(400)


@breaks("A9")
def a_record_that_can_not_be_read_stops_its_task(world: World) -> None:
    world.put(f"{keys.HOST_TASKS}a/default-web-1-0", b"{")
    world.go(2, ("hand", "default-web-1-0"))
    world.end(0)
    world.go()


@breaks("A10")
def many_vanish_and_are_stopped_at_once(world: World) -> None:
    world.issue(3)
    world.begin(3)
    world.go(2)
    for number in range(4):
        del world.store[f"{keys.HOST_TASKS}a/default-web-1-{number}"]
    world.revision += 1
    world.go(2, *(("hand", f"default-web-1-{number}") for number in range(4)))
    world.end(0)
    world.go()


@breaks("A11")
def a_copy_of_an_unknown_start_stays(world: World) -> None:
    world.end(0)
    world.begin(0, container=True)
    world.ended.add(Instance("a", "default-web-1-0", "web", "another"))
    world.go(500, ("mortal", "web"))


@breaks("A12")
def a_task_waits_for_what_hangs(world: World) -> None:
    world.go(20, ("due", "default-web-1-9 2"))


@breaks("A13")
def a_host_keeps_what_is_on_another_one(world: World) -> None:
    world.withdraw(0)
    world.issue(0, host="b")
    world.begin(0, "b")
    world.go(500)


@breaks("A14")
def a_port_is_given_on_before_it_is_free(world: World) -> None:
    world.issue(3, port=20000)
    world.begin(3)
    world.go()


@breaks("B1")
def a_scheduler_writes_without_a_lease(world: World) -> None:
    del world.store[keys.SCHEDULERS + "s"]
    world.go(2)
    world.event("task.issued")
    world.go()


@breaks("B1")
def a_task_comes_of_itself(world: World) -> None:
    world.issue(3, told=False)
    world.go()


@breaks("B2")
def a_scheduler_writes_on_an_old_lease(world: World) -> None:
    world.event("task.issued")
    world.more["lease_ages"] = {"s-lease": 13.0}
    world.go()


@breaks("B3")
def there_are_more_than_max(world: World) -> None:
    for number in (3, 4):
        world.issue(number)
        world.begin(number)
    world.go()


@breaks("B3")
def fewer_than_min_are_left(world: World) -> None:
    world.go(60)
    world.issue(0, scheduled=False)
    world.go()


@breaks("B4")
def two_tasks_have_one_port(world: World) -> None:
    world.issue(3, port=20000)
    world.go(200)


@breaks("B5")
def a_task_has_one_key(world: World) -> None:
    del world.store[keys.TASKS + "default-web-1-0"]
    world.revision += 1
    world.go()


@breaks("B5")
def a_tasks_keys_differ(world: World) -> None:
    world.put(keys.TASKS + "default-web-1-0", world.store[keys.TASKS + "default-web-1-1"].value)
    world.go()


@breaks("B6")
def an_id_names_another_task(world: World) -> None:
    world.issue(3, id_of=9)
    world.go()


@breaks("B7")
def a_roll_out_gets_nowhere(world: World) -> None:
    world.put(keys.ROLLOUTS + "web", codec.encode(Rollout(number=1, task_name="web", task_version=2)))
    world.go(3500)


@breaks("B8")
def a_task_is_started_all_the_time(world: World) -> None:
    for _ in range(12):
        world.end(0)
        world.begin(0)
        world.go(1, ("mortal", "web"))


@breaks("B8")
def a_task_fails_all_the_time(world: World) -> None:
    for number in range(1, 14):
        world.put(keys.FAILURES + "default-web-1-0", codec.encode(Failure(host="a", attempts=number, reason="x")))
        world.go()


@breaks("B9")
def a_host_rejects_the_same_again_and_again(world: World) -> None:
    for _ in range(8):
        world.event("task.rejected", who="agent a", host="a", subject="task/default-web-1-0")
        world.go()


@breaks("B10")
def a_host_is_lost_at_once(world: World) -> None:
    del world.store[keys.LIVE + "b"]
    world.go(5)
    world.event("host.lost", host="b")
    world.go()


@breaks("B10")
def many_hosts_are_lost(world: World) -> None:
    for host in HOSTS:
        del world.store[keys.LIVE + host]
    world.go(350)
    for host in HOSTS:
        world.event("host.lost", host=host)
    world.go()


@breaks("B11")
def something_is_written_with_nothing_to_do(world: World) -> None:
    world.go(2, ("still", ""))
    world.put(keys.SERVICE_STATUS + "web", b"{}")
    world.go()


@breaks("B12")
def leases_of_the_dead_stay(world: World) -> None:
    world.more["leases"] = 4
    world.go(300, ("killed", "x"))


@breaks("B13")
def a_task_lacks_in_the_end(world: World) -> None:
    world.withdraw(0)
    world.end(0)
    world.go(2)
    world.go(1, ("settled", ""))


@breaks("B13")
def a_task_does_not_run_in_the_end(world: World) -> None:
    world.end(0)
    world.go(1, ("mortal", "other"), ("settled", ""))


@breaks("B13")
def a_roll_out_goes_on_in_the_end(world: World) -> None:
    world.put(keys.ROLLOUTS + "web", codec.encode(Rollout(number=1, task_name="web", task_version=1)))
    world.go(1, ("settled", ""))


@breaks("B13")
def tasks_are_of_a_former_version_in_the_end(world: World) -> None:
    world.put(
        keys.SERVICES + "web", codec.encode(Service(name="web", task_name="web", task_version=2, desired=3, max=4))
    )
    world.go(1, ("settled", ""))


@breaks("B13")
def a_task_is_being_stopped_in_the_end(world: World) -> None:
    world.issue(3, scheduled=False)
    world.begin(3)
    world.go(1, ("settled", ""))


@breaks("C9")
def a_process_has_many_connections(world: World) -> None:
    world.more["connections"] = {"a": 9}
    world.go(30)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_history_is_found_by_the_rule_that_it_breaks(name: str) -> None:
    world = World()
    assert judge(world.history) == []
    BROKEN[name](world)
    assert name.partition(":")[0] in {violation.rule for violation in judge(world.history)}


def test_every_rule_there_is_has_a_history_that_breaks_it() -> None:
    from campaign.rules import all_rules

    assert {name.partition(":")[0] for name in BROKEN} == set(all_rules(Terms()))


def test_a_good_history_passes() -> None:
    """Kills, an outage, a withdrawal, a roll on, a lost host: all as it should be."""
    world = World()
    world.go(2, ("harm", world.end(0).mark))
    world.begin(0)
    world.go(3)
    world.away = True
    world.go(60, ("outage", ""))
    world.away = False
    world.go(2, ("answers", ""))
    desired(world, 2)
    world.issue(1, scheduled=False)
    world.go(3)
    world.end(1)
    world.go()
    world.withdraw(1)
    world.go(2)
    del world.store[keys.LIVE + "b"]
    world.go(400)
    world.event("host.lost", host="b")
    world.go(2, ("settled", ""))
    assert [str(one) for one in judge(world.history)] == []


def too_many_leases(world: World) -> None:
    world.more["leases"] = 4


def too_many_connections(world: World) -> None:
    world.more["connections"] = {"a": 9}


def a_task_too_many(world: World) -> None:
    world.begin(7)


@pytest.mark.parametrize("spoil", [too_many_leases, too_many_connections, a_task_too_many])
def test_what_may_last_for_a_while_is_judged_by_looks_and_not_by_how_late_they_came(
    spoil: Callable[[World], None],
) -> None:
    late, well = World(), World()
    for world in (late, well):
        spoil(world)
    late.go(7, late=10.0)
    well.go(600)
    assert judge(late.history) == []
    assert judge(well.history) != []
    late.go(600)
    assert judge(late.history) != [], "in the end it is found all the same"


def test_leases_are_held_against_nobody_in_looks_that_did_not_count_them_anew() -> None:
    world = World()
    too_many_leases(world)
    world.go()
    world.more["fresh"] = False
    world.go(100)
    assert judge(world.history) == []


def test_each_time_that_somebody_was_cut_off_it_may_have_left_one_lease_and_no_more() -> None:
    world = World()
    for _ in range(2):
        world.go(1, ("cut", "b"))
        world.go(1, ("heal", "b"))
    world.more["leases"] = 5
    world.go(150)
    assert judge(world.history) == []
    world.more["leases"] = 6
    world.go(50)
    assert {one.rule for one in judge(world.history)} == {"B12"}


def test_what_rules_remember_is_their_own() -> None:
    world = World()
    a_world = Judge()
    for sample in world.history:
        a_world.look(sample)
    assert judge(world.history) == []
    assert a_world.asked == len(world.history)


def test_a_copy_whose_keys_a_scheduler_removed_while_its_host_was_cut_off_is_stopped_in_its_own_time() -> None:
    world = World()
    desired(world, 2)
    world.go(2, ("cut", "a"))
    world.issue(0, scheduled=False)
    world.go(2)
    world.withdraw(0)
    world.go(2)
    world.go(20, ("heal", "a"))
    assert "A8" not in {violation.rule for violation in judge(world.history)}
