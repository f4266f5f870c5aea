"""Health as a scheduler knows it: asked for, and watched, only where a decision depends on it."""

from __future__ import annotations

import threading
import time

from sked_core.clock import SystemClock
from sked_core.interfaces.health import HealthContext
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure
from sked_core.runtime.health.probes import ProbeHealth
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_task, issued
from sked_core.testing.fakes import FakeHealth


def test_changes_of_health_are_heard_of_only_once_it_was_asked_for() -> None:
    health, task = FakeHealth(), a_task()
    loop = SchedulerLoop(
        store=MemoryStore(), plugins=Plugins([]), health=health, name="one", clock=SystemClock(), workers=1
    )
    health.register(task)
    assert loop._wait_for_health(0, 0.05) == 0  # though there is a change
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(loop._wait_for_health(0, 60.0)))
    waiting.start()
    known, pair = loop._evaluator.health, ("default", "web")
    with loop._monitor:
        assert known.of(pair, issued(task), time.monotonic())[task.id].healthy
    waiting.join(60)
    assert found and found[0] > 0
    known.wanted_until = time.monotonic() - 1.0  # nobody has asked for a while
    assert loop._wait_for_health(0, 0.05) == 0
    health.close()


def test_what_an_agent_says_of_another_hosts_task_does_not_count() -> None:
    store, pair = MemoryStore(), ("default", "web")
    here, there = a_task("h1", 0), a_task("h2", 1)
    said = {"cluster": "default", "service": "web", "output": ""}
    store.commit(
        [
            Put(keys.health("h1", here.id), encode({"healthy": True} | said)),
            Put(keys.health("h2", here.id), encode({"healthy": False} | said)),  # read last
            Put(keys.health("h1", there.id), encode({"healthy": True} | said)),
            Put(keys.failure(here.id), encode(Failure(host="h2", reason="a lie"))),
            Put(keys.failure(there.id), encode(Failure(host="h2", reason="so it is"))),
        ]
    )
    probes = ProbeHealth(HealthContext(store=store, url="", host="", clock=SystemClock()))
    loop = SchedulerLoop(store=store, plugins=Plugins([]), health=probes, name="one", clock=SystemClock(), workers=1)
    known, both = loop._evaluator.health, [*issued(here), *issued(there)]
    with loop._monitor:
        assert {i: one.healthy for i, one in known.of(pair, both, 0.0).items()} == {here.id: True}
        assert {i: one.reason for i, one in known.failures(pair, both, 0.0).items()} == {there.id: "so it is"}
    probes.close()
