"""The schedulers that one process has, asked so that one of them that fails or hangs holds up no other.

The built-in one is asked in the thread that calls. Those of plugins are asked ``aside``; one that does not come back is
left alone for a while, longer each time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.runtime.aside import Hung, aside
from sked_core.runtime.plugins import Plugins

log = logging.getLogger("sked.scheduler")
BUILT_IN = "default"
ALONE_SECONDS = (60.0, 120.0, 300.0, 600.0)
"""For how long a scheduler that hung is left alone, the first time, the second, …"""
MAX_STUCK = 3
"""With so many calls that have not come back it is not asked at all: each keeps a thread."""
T = TypeVar("T")


@dataclass(slots=True)
class _Silence:
    """Of a scheduler that hung. ``until``: monotonic seconds."""

    until: float = float("-inf")
    times: int = 0
    why: str = ""
    stuck: list[threading.Thread] = field(default_factory=list)

    def keeps(self, now: float) -> bool:
        """Whether it is not to be asked now."""
        self.stuck = [thread for thread in self.stuck if thread.is_alive()]
        return now < self.until or len(self.stuck) >= MAX_STUCK


class AskedSchedulers:
    """By name. Called with the scheduler's monitor held. ``left``: called when a call is left to itself, which may
    still change what it was given: from then on something else has to be used."""

    def __init__(self, plugins: Plugins, left: Callable[[], None]) -> None:
        self._plugins, self._left = plugins, left
        self._made: dict[str, Scheduler] = {}
        self._silences: dict[str, _Silence] = {}

    def __getitem__(self, name: str) -> Scheduler:
        return self._made[name]

    def has(self, name: str, now: float) -> bool:
        """Whether this process has the scheduler; a name that nobody provides may be a program outside.

        Raises PluginError for one that is installed here but broken.
        """
        if name not in self._made:
            try:
                factory = self._plugins.scheduler(name)
            except PluginError:
                if name in self._plugins.names("scheduler"):
                    raise
                return False
            self._made[name] = self.ask(name, now, factory)
        return True

    def ask(self, name: str, now: float, work: Callable[[], T]) -> T:
        """The result of ``work``, which asks the scheduler ``name``. Raises PluginError, with its name and package, if
        that failed, did not come back, or has not lately."""
        if name == BUILT_IN:
            return work()
        silence = self._silences.setdefault(name, _Silence())
        if silence.keeps(now):
            raise PluginError(silence.why)
        try:
            answer = aside(f"scheduler {name}", work)
        except Hung as hung:
            self._left()
            alone = ALONE_SECONDS[min(silence.times, len(ALONE_SECONDS) - 1)]
            silence.until, silence.times = now + alone, silence.times + 1
            silence.stuck.append(hung.thread)
            silence.why = f"{self._named(name, hung)}: it is left alone for {alone:g} s"
            if len(silence.stuck) >= MAX_STUCK:
                silence.why = f"{self._named(name, hung)}, {MAX_STUCK} times: it is left alone until one of them does"
            log.error("%s", silence.why)
            raise PluginError(silence.why) from hung
        except PluginError as error:
            raise PluginError(self._named(name, error)) from error
        del self._silences[name]
        return answer

    def _named(self, name: str, error: PluginError) -> str:
        """The message with the package behind the scheduler's name."""
        said, origin = str(error), f" of {self._plugins.origin('scheduler', name)}"
        return said if origin in said else said.replace(f"scheduler {name}", f"scheduler {name}{origin}", 1)
