"""Hosts, tasks and demands of every kind, for tests of what is kept and said of placements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
from hypothesis import strategies as st

from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.explanation import Question
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import scored, spread
from sked_core.logic.plan import Goal, Plan, demand_of
from sked_core.logic.reconcile import reconcile
from sked_core.logic.recording import Keep, sealed
from sked_core.model.decisions import Batch
from sked_core.model.ports import Binding
from sked_core.model.types import (
    ANYWHERE,
    AtMost,
    Neighbour,
    Placement,
    Preference,
    Spread,
    Task,
    TaskDefinition,
)
from sked_core.testing.builders import a_cluster, a_container, a_definition, a_goal, a_host, a_service, a_task, issued

SPREAD = spread()
CONTAINER_PORTS = frozenset({8080, Binding(53, "::1", "udp").number, Binding(20001, "127.0.0.1").number})


def _tight(demand: Demand, candidate: Candidate) -> float:
    """Looks at everything that a score may look at."""
    return -candidate.free_memory - candidate.free_cpu_units / 7 + candidate.free_ports / 3 - candidate.free_disk / 11


class _First:
    """A scheduler that is no score: the first host by name, for as long as it fits."""

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        for candidate in sorted(candidates, key=lambda one: one.host):
            while count and candidate.fits(demand):
                yield candidate.host
                candidate, count = candidate.after(demand), count - 1


FIRST: Scheduler = _First()


def ports_of(definition: TaskDefinition) -> frozenset[int]:
    return CONTAINER_PORTS if definition.name == "db" or definition.port else frozenset()


@dataclass(frozen=True)
class Case:
    hosts: tuple[HostView, ...]
    tasks: tuple[Task, ...]
    definition: TaskDefinition
    desired: int
    allowed: tuple[str, ...] | None
    avoid: dict[str, str]
    scheduler: Scheduler
    placement: Placement = ANYWHERE
    shunned_by: tuple[tuple[str, str], ...] = ()

    def goal(self) -> Goal:
        return a_goal(
            a_service(desired=self.desired, max=self.desired + 20, placement=self.placement),
            cluster=a_cluster(hosts=list(self.allowed) if self.allowed is not None else None),
            definition=self.definition,
            fixed_ports=ports_of(self.definition),
            shunned_by=self.shunned_by,
        )

    def plan(self, **keep: int) -> Plan:
        own = issued(*(task for task in self.tasks if task.service == "web"))
        fleet = Fleet(self.hosts, self.tasks, ports_of)
        return reconcile(
            self.goal(), own, fleet=fleet, health={}, scheduler=self.scheduler, avoid=self.avoid, keep=Keep(**keep)
        )

    def batch(self) -> Batch | None:
        """What is kept, as it is read again from the store."""
        batches = self.plan().batches
        if not batches:
            return None
        assert len(batches) == 1
        return read_again(sealed(batches[0], "web"))

    def question(self) -> Question:
        """Where one more task would go, and why not elsewhere."""
        tasks = defaultdict(list)
        for task in self.tasks:
            tasks[task.host].append(task)
        return Question(
            # As `sked explain` does: only schedulers know for how long a host has been away.
            fleet=Fleet([replace(view, lost=False) for view in self.hosts], self.tasks, ports_of),
            scheduler=self.scheduler,
            name="default",
            demand=demand_of(self.goal(), self.definition, ports_of(self.definition)),
            allowed=self.allowed,
            avoid=self.avoid,
            tasks=tasks,
            ports_of=ports_of,
        )


def read_again(batch: Batch) -> Batch:
    return msgspec.json.decode(msgspec.json.encode(batch), type=Batch)


NAMES = ("a", "b", "c", "d.x", "e_1")


TAGS = st.sampled_from(("host", "zone"))


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    def some(*items: object) -> list:
        return draw(st.lists(st.sampled_from(items), max_size=1))

    per = draw(TAGS)
    return Placement(
        require=some("zone = a", "zone in a, b", "zone != a", "rack exists", "host.name matches [a-d].*"),
        distinct_hosts=draw(st.integers(0, 3)) == 0,
        at_most=some(AtMost(count=1, per=per), AtMost(count=2, per=per)),
        near=some(Neighbour(service="db", per=per)),
        apart=some(Neighbour(service="cache", per=per), Neighbour(service="db", per=per)),
        leave_free=draw(st.sampled_from((0, 0, 10, 33))),
        prefer=some(
            Preference(host="zone = b"), Preference(service="db", per=per), Preference(service="web", weight=-9)
        ),
        spread=some(Spread(over="zone"), Spread(over="zone", shares={"a": 3, "b": 1})),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    hosts = [
        a_host(
            name,
            memory=draw(st.sampled_from((0, 100, 1000))),
            cpu_units=draw(st.sampled_from((100, 4096))),
            disk=draw(st.sampled_from((10, 1000))),
            alive=draw(st.booleans()) or draw(st.booleans()),
            lost=draw(st.integers(0, 4)) == 0,
            mark=draw(st.sampled_from(("", "", "", "cordoned", "draining"))),
            ports=draw(st.lists(st.sampled_from((8080, 20000, 20001)), unique=True)),
            port_range=(20000, draw(st.sampled_from((20001, 20004)))),
            executors=draw(st.sampled_from((["bash"], ["bash"], ["docker"]))),
            tags=draw(st.sampled_from(({}, {"zone": "a"}, {"zone": "b", "rack": "r1"}))),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    ]
    amounts = {"memory": st.sampled_from((0, 30, 60)), "cpu_units": st.sampled_from((0, 40))}
    tasks = []
    for number in range(draw(st.integers(0, 8))):
        service = draw(st.sampled_from(("web", "db", "cache")))
        definition = a_definition(
            service,
            containers=[a_container(disk_use=draw(st.sampled_from((0, 3))))],
            **{name: draw(found) for name, found in amounts.items()},
        )
        host, port = draw(st.sampled_from(NAMES)), draw(st.sampled_from((0, 80, 20000, 20001)))
        more = {"scheduled": draw(st.booleans()) or draw(st.booleans()), "rejected": draw(st.integers(0, 3)) == 0}
        cluster = a_cluster("other" if service != "web" and draw(st.booleans()) else "default")
        tasks.append(a_task(host, number, definition, service=service, port=port, cluster=cluster, **more))
    kind = draw(st.sampled_from(({}, {"provide_port": True}, {"port": 80})))
    definition = a_definition(**kind, **{name: draw(found) for name, found in amounts.items()})
    return Case(
        hosts=tuple(hosts),
        tasks=tuple(tasks),
        definition=definition,
        desired=draw(st.integers(1, 12)),
        allowed=draw(st.sampled_from((None, NAMES[:3]))),
        avoid=draw(st.sampled_from(({}, {"a": "rejected this service: no"}))),
        scheduler=draw(st.sampled_from((SPREAD, scored(_tight), FIRST))),
        placement=draw(placements()) if draw(st.booleans()) else ANYWHERE,
        shunned_by=draw(st.sampled_from(((), (), (("db", "host"),), (("cache", "zone"),)))),
    )
