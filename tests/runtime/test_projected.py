"""A projection beside what the real scheduler does with the same state, until it does nothing more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.logic.projection import project
from sked_core.logic.world import no_ports
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Mark
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.live_world import read_world
from sked_core.testing.builders import a_check, a_cluster, a_container, a_definition, a_service, a_task

CHECKED = [a_container(checks=[a_check()])]
"""Well as soon as it says so: nothing has to be waited for."""


class Played(Stage):
    """With agents to whom all goes well, and time that passes between two looks of the scheduler."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)
        self.loop = self.scheduler(lost_after=0.0)

    def round(self) -> None:
        """One step of the scheduler that sees all, and what agents make of it."""
        self.loop._feed.invalidate()
        self.loop.step()
        self.clock.advance(3.0)  # more than for which health is taken as known
        self.loop._keeper.renew_if_due()
        alive = {keys.last_segment(key) for key in self.memory.read(keys.LIVE).entries}
        for name, task in self.tasks().items():
            if task.host not in alive:
                continue
            if not task.scheduled:
                self.memory.commit([Delete(keys.task(name)), Delete(keys.host_task(task.host, name))])
                self.health.deregister(task.id)
            elif not task.rejected:
                self.health.register(task)

    def play(self) -> dict[str, str]:
        """To the end; returns the host of each task that is left."""
        still, before = 0, None
        for _ in range(300):
            self.round()
            now = {name: task.host for name, task in self.tasks().items()}
            still, before = (still + 1 if now == before else 0), now
            if still >= 3:
                return now
        raise AssertionError("the scheduler finds no end")


def differs(played: Played) -> dict[str, object]:
    """Play what stands in the store, and say where the end is not the one that was foreseen."""
    live = read_world(played.memory, no_ports, played.health)
    projection = project(live.world, {"default": Plugins([]).scheduler("default")()})
    assert projection.ended
    foreseen = {str(name): one.task.host for name, one in projection.after.issued.items()}
    real = played.play()
    return {
        name: (foreseen.get(name), real.get(name)) for name in foreseen | real if foreseen.get(name) != real.get(name)
    }


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, object]:
    """What stands in a store before, and what is changed then."""
    services = [
        {
            "name": f"s{number}",
            "version": draw(st.integers(1, 2)),
            "desired": (desired := draw(st.integers(0, 6))),
            "min": draw(st.integers(0, desired)),
            "max": desired + draw(st.integers(1, 3)),
            "memory": draw(st.sampled_from([0, 100, 300])),
            "ports": draw(st.booleans()),
        }
        for number in range(draw(st.integers(1, 3)))
    ]
    return {
        "services": services,
        "hosts": draw(st.lists(st.sampled_from([900, 2000, 8000]), min_size=2, max_size=5)),
        "drain": draw(st.booleans()),
        "lose": draw(st.booleans()),
        "scale": draw(st.integers(0, 8)),
        "roll": draw(st.booleans()),
    }


def declare(played: Played, services: list[dict[str, object]]) -> None:
    rows = [dict(one) for one in services]
    for row in rows:
        memory, ports = row.pop("memory"), row.pop("ports")
        for version in (1, 2, 3):
            definition = a_definition(row["name"], version, memory=memory, provide_port=ports, containers=CHECKED)
            played.memory.commit([Put(keys.task_definition(row["name"], version), encode(definition))])
        played.memory.commit([Put(keys.service(row["name"]), encode(a_service(**row)))])
    cluster = a_cluster(services=tuple(row["name"] for row in rows))
    played.memory.commit([Put(keys.cluster("default"), encode(cluster))])


@settings(max_examples=30, deadline=None)
@given(scenes())
def test_the_end_is_the_one_that_the_scheduler_comes_to(scene) -> None:
    played = Played()
    try:
        for number, memory in enumerate(scene["hosts"]):
            played.hosts(f"h{number}", memory=memory)
        services = scene["services"]
        declare(played, services)
        assert not differs(played)
        first = {**services[0], "desired": scene["scale"], "min": 0, "max": scene["scale"] + 2}
        first["version"] = 3 if scene["roll"] else first["version"]
        declare(played, [first, *services[1:]])
        assert not differs(played)
        if scene["drain"]:
            played.memory.commit([Put(keys.mark("h0"), encode(Mark("draining")))])
        if scene["lose"]:
            played.memory.commit([Delete(keys.live("h1"))])
        assert not differs(played)
    finally:
        played.close()


def test_a_rejected_task_goes_where_the_scheduler_takes_it(declare) -> None:
    played = Played()
    try:
        played.hosts("h1", "h2", "h3")
        declare(played.memory, a_cluster(), a_service(desired=2), a_definition(containers=CHECKED))
        task = a_task("h2", 1, a_definition(containers=CHECKED), rejected=True, reject_reason="port 80 is in use")
        ops = [Put(keys.task(task.id), encode(task)), Put(keys.host_task("h2", task.id), encode(task))]
        played.memory.commit(ops)
        assert not differs(played)
    finally:
        played.close()
