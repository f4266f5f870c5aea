"""The examples pass the kits of what they are, as the kits try any plugin."""

from __future__ import annotations

import pytest

from rigs.needs import program as needed
from sked_bridge.samples import scheduler_sample
from sked_core.testing.scheduler_contract import SchedulerContract

from .conftest import EMPTIEST, QUIETEST


class TestNode(SchedulerContract):
    sample = scheduler_sample(EMPTIEST)
    examples = 10


class TestPerl(SchedulerContract):
    sample = scheduler_sample(QUIETEST)
    examples = 10


@pytest.fixture(autouse=True)
def _programs() -> None:
    needed("node", "nodejs")
    needed("perl")
