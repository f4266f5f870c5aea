"""Ending everything that a container left running."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable

from sked_bash.processes import Identity, send, wait_ended

FORCE_SECONDS = 5.0
"""How long killed processes may take to vanish; past it they hang in the kernel, and nobody can help."""
_ROUND_SECONDS = 0.2


def end_tree(
    find: Callable[[], list[Identity]], grace: float, force: Callable[[], None] | None = None
) -> list[Identity]:
    """End all processes that ``find`` reports: TERM first, KILL for what is left after ``grace`` seconds, and then
    ``force`` as well, which may know of a shorter way.

    Repeats until two looks in a row find none, since a fork can slip through one. Returns what could not be ended
    within ``grace`` + FORCE_SECONDS: nothing, normally.
    """
    begun = time.monotonic()
    polite_until, give_up_at = begun + grace, begun + grace + FORCE_SECONDS
    quiet_looks = 0
    while quiet_looks < 2:
        alive = find()
        now = time.monotonic()
        if not alive:
            quiet_looks += 1
        elif now >= give_up_at:
            return alive
        elif now < polite_until:
            quiet_looks = 0
            # A stopped process acts on TERM only once it goes on.
            _signal_all(alive, signal.SIGTERM, signal.SIGCONT)
            wait_ended(alive, polite_until - now)
        else:
            quiet_looks = 0
            if force is not None:
                force()
            _signal_all(alive, signal.SIGKILL)
            wait_ended(alive, _ROUND_SECONDS)
    return []


def _signal_all(identities: Iterable[Identity], *numbers: signal.Signals) -> None:
    for identity in identities:
        for number in numbers:
            try:
                send(identity, number)
            except PermissionError:
                break  # another user's (sudo): it stays in what `find` reports, and so in the result
