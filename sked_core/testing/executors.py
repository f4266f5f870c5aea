"""The contract of the Executor port as tests. To hold an executor to it, in a test file of your own::

    class TestPages(ExecutorContract):
        sample = PAGES

``sample`` is an ExecutorSample, which says how one is made and what its specs look like. What a sample leaves out, or
the executor does not offer, is skipped and says so. Whatever the tests start is gone when they are through; they need
Linux, and ``kills`` many processes of their own.
"""

from __future__ import annotations

import pytest

# Before they are imported, so that a failure in an author's hands shows the values.
for _part in ("base", "starting", "adopting", "crashing", "specs", "running", "conduct", "afar"):
    pytest.register_assert_rewrite(f"sked_core.testing.executor_contract.{_part}")

from sked_core.testing.executor_contract.adopting import AdoptionTests  # noqa: E402
from sked_core.testing.executor_contract.afar import (  # noqa: E402
    CommandContract,
    Follower,
    LogContract,
    Run,
    ended,
    read,
    talk,
)
from sked_core.testing.executor_contract.base import capabilities  # noqa: E402
from sked_core.testing.executor_contract.conduct import ConductTests  # noqa: E402
from sked_core.testing.executor_contract.crashing import CrashTests  # noqa: E402
from sked_core.testing.executor_contract.running import RunTests  # noqa: E402
from sked_core.testing.executor_contract.specs import SpecTests  # noqa: E402
from sked_core.testing.executor_contract.starting import StartTests  # noqa: E402

__all__ = [
    "CommandContract",
    "ExecutorContract",
    "Follower",
    "LogContract",
    "Run",
    "capabilities",
    "ended",
    "read",
    "talk",
]


class ExecutorContract(
    SpecTests, StartTests, AdoptionTests, CrashTests, RunTests, ConductTests, LogContract, CommandContract
):
    """Inherit, give it a ``sample``, and every test runs against your executor.

    ``patience`` and ``kills`` may be overridden: see executor_contract.base.
    """
