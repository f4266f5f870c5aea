"""Waiting until hosts are empty."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sked_core.client import outcomes
from sked_core.client.listing import why
from sked_core.client.wording import counted
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Store
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import ServiceStatus, Task
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
    left: int = 0
    stopping: int = 0
    waiting: set[tuple[str, str]] = field(default_factory=set)
    """Services, with their clusters, whose tasks have not been asked to stop yet."""

    def look(self, store: Store) -> None:
        """See what is left there. Tasks that the host has rejected don't count: they don't run."""
        found: list[Task | None] = []
        for key, entry in store.read(keys.host_tasks(self.name)).entries.items():
            try:
                found.append(decode(entry.value, Task))
            except InvalidValue:
                if keys.last_segment(key):
                    found.append(None)  # whatever it is, it is not gone
        there = [task for task in found if task is None or not task.rejected]
        self.left, self.total = len(there), max(self.total, len(there))
        self.stopping = sum(task is not None and not task.scheduled for task in there)
        self.waiting = {(task.service, task.cluster.name) for task in there if task is not None and task.scheduled}

    def line(self, reasons: dict[tuple[str, str], str]) -> str:
        if not self.left:
            return f"{self.name}: empty"
        counts = [f"{self.stopping} stopping"] if self.stopping else []
        if waiting := self.left - self.stopping:
            known = [f"{service}: {reasons[service, cluster]}" for service, cluster in sorted(self.waiting)
                     if reasons.get((service, cluster))]  # fmt: skip
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
                for state in states:
                    state.look(store)
                late = [state for state in states if state.left]
                if not late:
                    return shown.show([])
                shown.show([state.line(_reasons(store, late)) for state in states])
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


def _reasons(store: Store, hosts: Sequence[_Host]) -> dict[tuple[str, str], str]:
    """What schedulers say of the services whose tasks wait."""
    reasons: dict[tuple[str, str], str] = {}
    for service in {service for host in hosts for service, _ in host.waiting}:
        key = keys.service_status(service)
        entry = store.read(key).entries.get(key)
        try:
            clusters = decode(entry.value, ServiceStatus).clusters if entry else {}
        except InvalidValue:
            clusters = {}
        reasons |= {(service, name): why(status) for name, status in clusters.items()}
    return reasons


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
