"""Health as a scheduler knows it: asked for, and watched, only where a decision depends on it."""

from __future__ import annotations

import threading
import time

from sked_core.clock import SystemClock
from sked_core.runtime.memory import MemoryStore
from sked_core.runtime.plugins import Plugins
from sked_core.runtime.scheduler_loop import SchedulerLoop
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
    waiting = threading.Thread(target=lambda: found.append(loop._wait_for_health(0, 10.0)))
    waiting.start()
    known, pair = loop._evaluator.health, ("default", "web")
    with loop._monitor:
        assert known.of(pair, issued(task), time.monotonic())[task.id].healthy
    waiting.join(5.0)
    assert found and found[0] > 0
    known.wanted_until = time.monotonic() - 1.0  # nobody has asked for a while
    assert loop._wait_for_health(0, 0.05) == 0
    health.close()
