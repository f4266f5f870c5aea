"""A service ``web`` on a store whose hosts' agents are played by the test."""

from __future__ import annotations

from runtime.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.state import marker


class WebPlay:
    """``loop`` is the scheduler, stepped by hand; whoever derives from this declares the service and makes it."""

    stage: Stage
    loop: SchedulerLoop

    def write(self, key: str, value: object) -> None:
        self.stage.memory.commit([Put(key, encode(value))])

    def agents(self) -> None:
        """Start what is issued, and confirm what is withdrawn."""
        for key, task in self.stage.tasks().items():
            if not task.scheduled:
                self.stage.health.deregister(task.id)
                gone = [Delete(keys.task(key)), Delete(keys.host_task(task.host, key))]
                self.stage.memory.commit([*gone, marker("web", task.host)])
            elif not task.rejected:
                self.stage.health.register(task)

    def step(self, seconds: float = 1.0) -> None:
        self.stage.clock.advance(seconds)
        self.loop._keeper.renew_if_due()
        self.loop._feed.invalidate()
        self.loop._evaluator.health.invalidate()
        self.loop.step()

    def settle(self, rounds: int = 12) -> None:
        for _ in range(rounds):
            self.step()
            self.agents()
