"""What every executor promises, by the kit."""

from sked_bash.samples import BASH
from sked_core.testing.executors import ExecutorContract


class TestBash(ExecutorContract):
    sample = BASH
    kills = 20
