"""The kit of schedulers outside of Sked: programs in any language that place services through the store alone.

    python -m sked_core.testing.outside --backend consul://127.0.0.1:8500 -- ./scheduler {name}

runs it from the command line; tests take ``Bench`` and ``CHECKS``, each of which raises AssertionError.
"""

from sked_core.testing.outside.bench import Bench
from sked_core.testing.outside.checks import CHECKS

__all__ = ["CHECKS", "Bench"]
