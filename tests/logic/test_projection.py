"""Where everything would go: the end of what a scheduler would do, and what is said of the way there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.logic.fleet import HostView
from sked_core.logic.placement import spread
from sked_core.logic.plan import WAITING_FOR, Issued
from sked_core.logic.projection import Course, Projection, project
from sked_core.logic.world import World
from sked_core.model.types import Health, Placement, Rollout, Service, Task, TaskDefinition, UpdatePolicy
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task, issued

SCHEDULERS = {"default": spread()}


def a_world(
    *services: Service,
    hosts: Iterable[HostView] = (a_host("h1"), a_host("h2"), a_host("h3")),
    tasks: Iterable[Task] = (),
    definitions: Iterable[TaskDefinition] = (a_definition("web"), a_definition("web", 2)),
    **more: object,
) -> World:
    return World(
        services={one.name: one for one in services},
        clusters={"default": a_cluster(services=tuple(one.name for one in services))},
        definitions={(one.name, one.version): one for one in definitions},
        hosts={view.host.name: view for view in hosts},
        issued={one.id: one for one in issued(*tasks)},
        health={task.id: Health(True) for task in tasks},
        **more,  # type: ignore[arg-type]
    )


def of_web(*places: str, **more: object) -> list[Task]:
    return [a_task(host, number, cluster=a_cluster(services=("web",)), **more) for number, host in enumerate(places)]


def web(world: World) -> Course:
    return project(world, SCHEDULERS).courses["default", "web"]


def moved(course: Course) -> list[tuple[str, str, str]]:
    return [(move.before.host, move.after.host, move.why) for move in course.moves]


def test_new_tasks_are_placed_and_what_runs_stays() -> None:
    course = web(a_world(a_service(desired=3), tasks=of_web("h1")))
    assert [task.host for task in course.stay] == ["h1"]
    assert [task.host for task in course.new] == ["h2", "h3"]
    assert (course.moves, course.gone, course.waiting, course.fewest) == ((), (), 0, 1)


def test_where_all_is_settled_nothing_is_done() -> None:
    projection = project(world := a_world(a_service(desired=2), tasks=of_web("h1", "h2")), SCHEDULERS)
    assert projection.courses["default", "web"].quiet and projection.after.issued == world.issued


def test_tasks_of_a_lost_host_go_elsewhere_under_their_own_ids() -> None:
    hosts = (a_host("h1"), a_host("h2", alive=False, lost=True), a_host("h3"))
    course = web(a_world(a_service(desired=3), tasks=of_web("h1", "h2", "h3"), hosts=hosts))
    assert [(move.before.id, move.after.id) for move in course.moves] == [("default-web-1-1", "default-web-1-1")]
    assert moved(course) == [("h2", "h1", "h2, where default-web-1-1 was, is lost")]


def test_a_drained_host_is_left_step_by_step() -> None:
    hosts = (a_host("h1", mark="draining"), a_host("h2"), a_host("h3"))
    course = web(a_world(a_service(desired=4), tasks=of_web("h1", "h1", "h2", "h3"), hosts=hosts))
    assert moved(course) == [("h1", "h2", "h1 is draining"), ("h1", "h3", "h1 is draining")]
    assert course.fewest == 4 and course.rounds > 2


def test_a_new_version_takes_the_place_of_the_old_one_within_min() -> None:
    service = a_service(version=2, desired=3, min=2, max=3)
    course = web(a_world(service, tasks=of_web("h1", "h2", "h3")))
    assert Counter(why for *_, why in moved(course)) == {"version 2 replaces it": 3}
    assert {move.after.task_definition.version for move in course.moves} == {2} and course.fewest == 2


def test_a_new_version_replaces_no_more_tasks_than_are_desired() -> None:
    tasks = of_web("h1", "h2", "h3", "h1")
    for most, unwell in ((5, ()), (5, (tasks[0].id,)), (4, (tasks[0].id,)), (4, (tasks[1].id,))):
        world = a_world(a_service(version=2, desired=2, min=1, max=most), tasks=tasks)
        course = web(replace(world, health={name: well for name, well in world.health.items() if name not in unwell}))
        assert [why for *_, why in moved(course)] == ["version 2 replaces it"] * 2, (most, unwell)
        assert [why for _, why in course.gone] == ["desired is 2"] * 2, (most, unwell)
    narrow = web(a_world(a_service(version=2, desired=2, min=2, max=2), tasks=tasks))
    assert Counter(why for _, why in narrow.gone) == {"desired is 2": 2}


def test_fewer_desired_tasks_end_without_replacement() -> None:
    course = web(a_world(a_service(desired=1), tasks=of_web("h1", "h2", "h3")))
    assert [(task.host, why) for task, why in course.gone] == [
        ("h2", "desired is 1"),
        ("h3", "desired is 1"),
    ]


def test_what_does_not_fit_waits_with_the_reasons_of_every_host() -> None:
    hosts, big = (a_host("h1", memory=1000), a_host("h2", executors=[])), a_definition(memory=600)
    course = web(a_world(a_service(desired=3), hosts=hosts, definitions=[big]))
    assert [task.host for task in course.new] == ["h1"] and course.waiting == 2
    assert set(course.refusals) == {"h1", "h2"} and "bash" in course.refusals["h2"][0]


def test_room_that_one_service_leaves_is_taken_by_another() -> None:
    hosts = [a_host("h1", memory=1000)]
    small, large = a_definition("small", memory=600), a_definition("large", memory=900)
    tasks = [a_task("h1", service="small", definition=small)]
    world = a_world(
        a_service("large", desired=1),
        a_service("small", desired=0),
        hosts=hosts,
        tasks=tasks,
        definitions=[small, large],
    )
    courses = project(world, SCHEDULERS).courses
    assert courses["default", "large"].waiting == 0 and [t.host for t in courses["default", "large"].new] == ["h1"]


def test_a_task_that_is_not_healthy_yet_becomes_so() -> None:
    world = a_world(
        a_service(version=2, desired=1, max=2), tasks=[*of_web("h1"), a_task("h2", 0, a_definition(version=2))]
    )
    course = web(replace(world, health={}))
    assert [(task.id, why) for task, why in course.gone] == [("default-web-1-0", "version 2 replaces it")]


def test_a_task_on_a_host_that_may_come_back_is_waited_for() -> None:
    hosts = (a_host("h1", alive=False), a_host("h2"))
    tasks = [*of_web("h2"), a_task("h1", 0, a_definition(version=2))]
    world = a_world(a_service(version=2, desired=1, max=2), tasks=tasks, hosts=hosts)
    course = web(replace(world, health={tasks[0].id: Health(True)}))
    assert course.blocked.startswith(WAITING_FOR)


def test_no_room_between_min_and_max_is_said() -> None:
    course = web(a_world(a_service(version=2, desired=2, max=2), tasks=of_web("h1", "h2")))
    assert "min 2 and max 2 leave no room" in course.blocked and not course.moves


def test_a_scheduler_that_is_not_installed_is_said_and_its_tasks_stay() -> None:
    course = web(a_world(a_service(desired=3, scheduler="packing"), tasks=of_web("h1")))
    assert "packing is not installed here" in course.blocked and len(course.stay) == 1


def test_what_a_host_rejected_goes_to_another() -> None:
    task = a_task("h1", cluster=a_cluster(services=("web",)), rejected=True, reject_reason="port 80 is in use")
    course = web(a_world(a_service(desired=1), tasks=[task], hosts=[a_host("h1"), a_host("h2")]))
    assert moved(course) == [("h1", "h2", "h1 rejected default-web-1-0: port 80 is in use")]
    alone = web(a_world(a_service(desired=1), tasks=[task], hosts=[a_host("h1")]))
    assert alone.waiting == 1 and alone.refusals == {"h1": ("rejected this service: port 80 is in use",)}
    assert not alone.stay


def test_what_canaries_and_held_roll_outs_lead_to_is_said() -> None:
    service = a_service(version=2, desired=2, update=UpdatePolicy(canaries=1))
    tasks = of_web("h1", "h2")
    assert web(a_world(service, tasks=tasks)).note == "once its canaries are promoted"
    paused = Rollout(number=4, task_name="web", task_version=2, state="paused")
    assert (
        web(a_world(service, tasks=tasks, rollouts={"web": paused})).note == "once roll-out 4, which is paused, goes on"
    )


def test_services_of_higher_priority_are_seen_to_first() -> None:
    big = {
        "definitions": [a_definition("a", memory=800), a_definition("b", memory=800)],
        "hosts": [a_host(memory=1000)],
    }
    urgent = a_service("b", desired=1, placement=Placement(priority=90))
    courses = project(a_world(a_service("a", desired=1), urgent, **big), SCHEDULERS).courses
    assert (courses["default", "a"].waiting, courses["default", "b"].waiting) == (1, 0)


def test_a_projection_that_takes_too_long_says_so(monkeypatch) -> None:
    monkeypatch.setattr("sked_core.logic.projection.MAX_WORK", 20)
    projection = project(a_world(a_service(version=2, desired=9, max=10), tasks=of_web(*["h1"] * 9)), SCHEDULERS)
    assert not projection.ended


sizes = st.integers(0, 4).map(lambda quarter: quarter * 256)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Some services on hosts of several sizes, in whatever state; tasks of several versions anywhere."""
    hosts = [
        a_host(f"h{number}", memory=draw(st.sampled_from([512, 1024, 4096])), **draw(states))
        for number in range(draw(st.integers(1, 5)))
    ]
    names = [f"s{number}" for number in range(draw(st.integers(1, 4)))]
    definitions = [a_definition(name, version, memory=draw(sizes)) for name in names for version in (1, 2)]
    of = {(one.name, one.version): one for one in definitions}
    services, tasks = [], []
    for name in names:
        desired = draw(st.integers(0, 6))
        low = draw(st.integers(0, desired))
        services.append(
            a_service(name, draw(st.integers(1, 2)), desired, min=low, max=desired + draw(st.integers(0, 3)))
        )
        for number in range(draw(st.integers(0, 6))):
            place, version = draw(st.sampled_from(hosts)).host.name, draw(st.integers(1, 2))
            tasks.append(a_task(place, number, of[name, version], service=name, **draw(fates)))
    unique = {task.id: task for task in tasks}
    return a_world(*services, hosts=hosts, tasks=list(unique.values()), definitions=definitions)


states = st.sampled_from(
    [{}, {}, {}, {"mark": "draining"}, {"mark": "cordoned"}, {"alive": False, "lost": True}, {"alive": False}]
)
fates = st.sampled_from([{}, {}, {}, {"scheduled": False}, {"rejected": True, "reject_reason": "no"}])


def load(world: World) -> Mapping[str, int]:
    counted: Counter[str] = Counter()
    for one in world.issued.values():
        counted[one.task.host] += one.task.task_definition.total_memory * (not one.task.rejected)
    return counted


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_it_ends_accounts_for_every_task_and_overloads_no_host(world: World) -> None:
    projection = project(world, SCHEDULERS)
    assert projection.ended
    before, after = load(world), load(projection.after)
    assert all(after[name] <= max(before[name], view.host.memory) for name, view in world.hosts.items())
    check_accounts(projection)


def check_accounts(projection: Projection) -> None:
    world, after = projection.before, projection.after
    for pair, course in projection.courses.items():
        left = [*course.stay, *(move.after for move in course.moves), *course.new]
        running = [
            one.task.id
            for one in after.issued.values()
            if (one.task.cluster.name, one.task.service) == pair
            and one.task.scheduled and not one.task.rejected and not world.hosts[one.task.host].lost
        ]  # fmt: skip
        assert sorted(task.id for task in left) == sorted(running)
        ended = [*(move.before.id for move in course.moves), *(task.id for task, _ in course.gone)]
        assert len(ended) == len(set(ended)) and set(ended) <= world.issued.keys()
        assert all(move.why for move in course.moves) and all(why for _, why in course.gone)
        if not course.blocked:
            assert len(running) + course.waiting >= course.wanted
        assert set(course.refusals) == (set(world.hosts) if course.waiting and course.refusals else set())


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_its_end_is_an_end(world: World) -> None:
    # A host is left alone for as long as the task stands that it rejected: the next look would try it again.
    world = replace(world, issued={name: one for name, one in world.issued.items() if not one.task.rejected})
    after = project(world, SCHEDULERS).after
    again = project(after, SCHEDULERS)
    assert again.ended and all(not (c.moves or c.new or c.gone) for c in again.courses.values())


@settings(max_examples=60, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_known_does_not_matter(world: World, random) -> None:
    def shuffled(known: Mapping[str, object]) -> dict[str, object]:
        items = list(known.items())
        random.shuffle(items)
        return dict(items)

    kinds = ("services", "hosts", "issued", "health", "definitions")
    other = replace(world, **{kind: shuffled(getattr(world, kind)) for kind in kinds})
    assert outcome(project(other, SCHEDULERS)) == outcome(project(world, SCHEDULERS))


def outcome(projection: Projection) -> object:
    def known(one: Issued) -> tuple[str, str]:
        return one.task.id, one.task.host

    ends = sorted(map(known, projection.after.issued.values()))
    return ends, {pair: (moved(one), one.waiting, one.blocked) for pair, one in projection.courses.items()}
