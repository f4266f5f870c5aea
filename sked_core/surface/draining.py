"""Waiting until hosts are empty."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sked_core.client import outcomes
from sked_core.client.acting.marking import Left, left_on
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Store
from sked_core.model import keys
from sked_core.model.wording import counted
from sked_core.surface.progress import Shown

LOOK_SECONDS = 2.0
"""Between two looks where no task goes: the reason why they wait may have changed."""
RETRY_SECONDS = 1.0
"""Between two tries to reach a store that does not answer."""
MAX_REASONS = 3


@dataclass(slots=True)
class _Host:
    name: str
    total: int = 0
    now: Left | None = None

    @property
    def left(self) -> int:
        return self.now.tasks if self.now else 0

    def seen(self, now: Left) -> None:
        self.now, self.total = now, max(self.total, now.tasks)

    def line(self) -> str:
        if self.now is None or not self.left:
            return f"{self.name}: empty"
        counts = [f"{self.now.stopping} stopping"] if self.now.stopping else []
        if waiting := self.left - self.now.stopping:
            known = [f"{service}: {why}" for (service, _), why in self.now.waiting.items() if why]
            more = [f"and {len(known) - MAX_REASONS} more"] if len(known) > MAX_REASONS else []
            counts.append(f"{waiting} waiting" + (": " if known else "") + " | ".join(known[:MAX_REASONS] + more))
        return f"{self.name}: {self.left} of {counted(self.total, 'task')} left ({', '.join(counts)})"


def wait_until_empty(store: Store, hosts: Sequence[str], timeout: float, again: str) -> None:
    """Return once no task is left on ``hosts``, showing how far each is; outages of the store are waited for.

    Raises Ended with code 9 after ``timeout`` seconds, and with 130 on Ctrl-C; ``again`` is how to attach again. The
    drain goes on in any case.
    """
    deadline = time.monotonic() + timeout
    shown, away = Shown(), ""
    states = [_Host(host) for host in hosts]
    # Waiting for one host wakes for its tasks alone; for several of them, with those of any.
    prefix = keys.host_tasks(hosts[0]) if len(hosts) == 1 else keys.HOST_TASKS
    try:
        while True:
            remaining = deadline - time.monotonic()
            try:
                revision = store.read(prefix).revision
                for state, left in zip(states, left_on(store, hosts), strict=True):
                    state.seen(left)
                late = [state for state in states if state.left]
                if not late:
                    return shown.show([])
                shown.show([state.line() for state in states])
                if remaining > 0:
                    store.wait(prefix, revision, min(remaining, LOOK_SECONDS))
                away = ""
            except Unavailable as error:
                if not away:
                    shown.say(f"{error}; trying again")
                away = str(error)
                late = [state for state in states if state.left or not state.total]
                time.sleep(max(0.0, min(remaining, RETRY_SECONDS)))
            if remaining <= 0:
                raise _timed_out(late, timeout, again, away)
    except KeyboardInterrupt:
        raise outcomes.Ended(
            "interrupted; the drain goes on", code=outcomes.INTERRUPTED, hint=f"attach again:  {again}"
        ) from None


def _timed_out(late: Sequence[_Host], timeout: float, again: str, away: str) -> outcomes.Ended:
    if away:
        return outcomes.Ended(
            f"the store could not be reached after {timeout:g} s: {away}",
            code=outcomes.UNREACHABLE,
            hint=f"the drain goes on\nattach again:  {again}",
        )
    names = [state.name for state in late]
    return outcomes.Ended(
        "; ".join(f"{counted(state.left, 'task')} still on {state.name}" for state in late),
        code=outcomes.TIMED_OUT,
        hint="\n".join(
            [
                "the drain goes on",
                *(f"what is left:  sked tasks --by-host {name}" for name in names),
                "what waits:    sked services",
                f"go below min:  sked drain {' '.join(names)} --force",
                f"attach again:  {again}",
            ]
        ),
    )
