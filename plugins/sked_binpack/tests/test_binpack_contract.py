"""``binpack`` passes what every scheduler has to."""

from __future__ import annotations

from sked_binpack.plugin import sked_schedulers
from sked_core.testing.samples import SchedulerSample
from sked_core.testing.scheduler_contract import SchedulerContract


class TestBinpack(SchedulerContract):
    sample = SchedulerSample(name="binpack", make=sked_schedulers()["binpack"])
