"""The schedulers that one process has, asked so that one of them that fails or hangs holds up no other.

The built-in one is asked in the thread that calls. Those of plugins are asked ``aside``; one that does not come back is
left alone for a while, longer each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.runtime.plugins.aside import Hung, Stranger
from sked_core.runtime.plugins.registry import Plugins

log = logging.getLogger("sked.scheduler")
BUILT_IN = "default"
T = TypeVar("T")


class AskedSchedulers:
    """By name. Called with the scheduler's monitor held. ``left``: called when a call is left to itself, which may
    still change what it was given: from then on something else has to be used."""

    def __init__(self, plugins: Plugins, left: Callable[[], None]) -> None:
        self._plugins, self._left = plugins, left
        self._made: dict[str, Scheduler] = {}
        self._strangers: dict[str, Stranger] = {}

    def __getitem__(self, name: str) -> Scheduler:
        return self._made[name]

    def has(self, name: str, now: float) -> bool:
        """Whether this process has the scheduler; a name that nobody provides may be a program outside.

        Raises PluginError for one that is installed here but broken, or that several plugins offer.
        """
        if name not in self._made:
            try:
                factory = self._plugins.scheduler(name)
            except PluginError:
                if self._plugins.origin("scheduler", name):
                    raise
                return False
            self._made[name] = self.ask(name, now, factory)
        return True

    def ask(self, name: str, now: float, work: Callable[[], T]) -> T:
        """The result of ``work``, which asks the scheduler ``name``. Raises PluginError, with its name and package, if
        that failed, did not come back, or has not lately."""
        if name == BUILT_IN:
            return work()
        origin = f"scheduler {name} of {self._plugins.origin('scheduler', name)}"
        stranger = self._strangers.setdefault(name, Stranger(origin))
        try:
            return stranger.ask(work, now=now, left=self._left)
        except Hung as hung:
            log.error("%s", hung)
            raise
        except PluginError as error:
            said = str(error)
            raise PluginError(said if origin in said else said.replace(f"scheduler {name}", origin, 1)) from error
