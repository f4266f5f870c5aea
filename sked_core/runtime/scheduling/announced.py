"""What a scheduler process says of itself in the store: that it is there, and what its rounds fail by."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sked_core.clock import Clock
from sked_core.errors import LeaseLost, SkedError
from sked_core.interfaces.store import Put, Store
from sked_core.model import codec, keys
from sked_core.model.spec import plain
from sked_core.model.trouble import Trouble
from sked_core.model.types import Presence
from sked_core.runtime.journal import utc
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.plugins.loading import described

CALM_SECONDS = 10.0
"""Rounds that fail so soon after each other have a trouble in common; it is over when none has failed for so long."""
RENEWED = 20
"""After so many more of them what they fail by is said anew: it may be something else by now."""
MAX_WHY = 500
NOTE = "while looking at service "
"""Begins the note that errors bear of the service that they are about."""


class Announced:
    """Of the process ``name``, which places by ``schedulers``. Not thread-safe."""

    def __init__(self, store: Store, keeper: LeaseKeeper, clock: Clock, name: str, schedulers: Collection[str]) -> None:
        self._store, self._keeper, self._clock, self._name = store, keeper, clock, name
        self._offers = list(schedulers)
        self._last, self._since, self._count = float("-inf"), 0.0, 0
        self._trouble: Trouble | None = None
        self._said: Trouble | None = None

    def write(self, present: Mapping[str, Collection[str]]) -> Mapping[str, Collection[str]]:
        """Stand in line with the other schedulers, who are ``present``, for as long as the lease lives, and say what
        has come up; returns who is present then. Raises Unavailable, LeaseLost."""
        if self._name in present and self._said == self._trouble:
            return present
        lease = self._keeper.lease()  # one that can't be proven now may yet be renewed: it is not dropped
        said = Presence(self._offers, self._trouble)
        try:
            self._store.commit([Put(keys.scheduler(self._name), codec.encode(said), lease)])
        except LeaseLost:
            self._keeper.drop()
            raise
        self._said = said.trouble
        return {**present, self._name: frozenset(self._offers)}

    def failed(self, error: Exception) -> None:
        """A round failed by what may not pass by itself. Said from the second such round on: one may be bad luck."""
        now = self._clock.monotonic()
        if now - self._last > CALM_SECONDS:
            self._since, self._count = self._clock.wall(), 0
        elif self._count % RENEWED == 1:  # no commit for each that follows
            notes = [one for one in getattr(error, "__notes__", ()) if one.startswith(NOTE)]
            service = notes[0].removeprefix(NOTE) if notes else ""
            why = plain(str(error) if isinstance(error, SkedError) else described(error))[:MAX_WHY]
            self._trouble = Trouble(since=utc(self._since), why=why, service=service)
        self._last, self._count = now, self._count + 1

    def worked(self) -> float:
        """A round went well. Returns the seconds until the next one is needed to say that the trouble is over."""
        if self._trouble is None:
            return float("inf")
        left = self._last + CALM_SECONDS - self._clock.monotonic()
        if left <= 0:
            self._trouble = None
        return max(left, 0.0)
