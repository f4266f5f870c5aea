"""The built-in scheduler passes what every scheduler has to."""

from __future__ import annotations

from sked_core.logic.placement import spread
from sked_core.testing.samples import SchedulerSample
from sked_core.testing.scheduler_contract import SchedulerContract


class TestDefault(SchedulerContract):
    sample = SchedulerSample(name="default", make=spread)
