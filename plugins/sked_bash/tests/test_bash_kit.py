"""What every executor promises, by the kit."""

from sked_bash.samples import bash_sample
from sked_core.testing.executors import ExecutorContract


class TestBash(ExecutorContract):
    sample = bash_sample()
    kills = 20
