"""What Sked hands to the commands that plugins add."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sked_core.interfaces.store import Store


class Invocation(Protocol):
    """One call of the command line: a command gets it by ``click.pass_obj``."""

    def store(self) -> AbstractContextManager[Store]:
        """The store that ``--backend``, the environment or the settings name, open for the ``with`` block.

        What it raises, and whatever SkedError a command raises, ends the command with Sked's own words and exit codes.
        """
        ...
