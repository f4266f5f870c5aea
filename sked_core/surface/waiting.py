"""Waiting until what was applied is true, or until a roll-out has ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing

from sked_core.client import outcomes, reading
from sked_core.client.looking.rollouts import Failing, View, details, headline, history, look, settle_seconds
from sked_core.client.session import Session
from sked_core.model.types import Rollout, TaskId
from sked_core.surface.progress import Shown, wait_for
from sked_core.surface.render import note
from sked_core.surface.watching import as_it_was, looks

CLOCK_SECONDS = 1.0
"""How often running times are shown anew where nothing changes."""


def wait_until_healthy(
    sked: Session, names: Collection[str], begun: Mapping[str, int], *, timeout: float, again: str
) -> None:
    """Return once all tasks of these services are healthy, for as long as the service asks, and none is left that
    should not be. ``begun``: the numbers of the roll-outs that were begun, by service.

    Raises Ended with code 1 if a roll-out fails or is rolled back, 5 if another one supersedes it, 9 after ``timeout``
    seconds, 8 if some tasks could not be placed by then, and 130 on Ctrl-C; ``again`` is how to attach again. What was
    applied goes on in any case.
    """
    watched = _Watched(sked, names, begun, Shown())
    for line in reading.unattended(sked.store, [view.service for view in watched.look()]):
        note(line)
    settled_at: dict[str, float] = {}

    def settled(view: View) -> bool:
        name, now = view.service.name, time.monotonic()
        if not view.done:
            settled_at.pop(name, None)
            return False
        if name not in settled_at:
            # A roll-out that succeeded has waited already.
            settled_at[name] = now if name in watched.succeeded else now + settle_seconds(sked, view.service)
        return now >= settled_at[name]

    def pending() -> Sequence[View]:
        return watched.show([view for view in watched.look() if not settled(view)])

    late = wait_for(pending, timeout, "what was applied goes on", f"attach again:  {again}")
    if late:
        places = [(view, place) for view in late for place in view.places if not place.done]
        lines = [view.place_line(place) for view, place in places] or [view.service.name for view in late]
        unplaced = any(place.unplaced for _, place in places)
        reasons = [f"{place.cluster}/{view.service.name}: {place.why}" for view, place in places if place.why]
        failing = [line for view in late for line in details([*view.failing, *view.unwell])]
        raise outcomes.Ended(
            f"not healthy after {timeout:g} s: " + "; ".join(lines),
            code=outcomes.UNPLACED if unplaced else outcomes.TIMED_OUT,
            hint="\n".join([*reasons, *failing, "what was applied goes on", f"attach again:  {again}"]),
        )
    note("all tasks are healthy")


def follow(sked: Session, service: str, number: int, *, timeout: float, shown: Shown) -> None:
    """Show a roll-out until it has succeeded, through outages. Raises Ended as ``wait_until_healthy`` does, with code 9
    only for time, and with code 1 too for a rollback: what was wanted is not what runs."""
    watched = _Watched(sked, [service], {service: number}, shown)
    again = f"sked rollout status {service} -w"

    with closing(looks(sked, CLOCK_SECONDS)) as seen:

        def pending() -> bool:
            watched.sked, stale = next(seen)
            views = watched.look()
            ended = watched.succeeded.get(service)
            watched.show(views, [*as_it_was(stale), *([headline(service, ended)] if ended else [])])
            return ended is None

        late = wait_for(pending, timeout, "the roll-out goes on", f"attach again:  {again}", pause=0)
    if late:
        raise outcomes.Ended(
            f"roll-out {number} of {service} has not ended after {timeout:g} s",
            code=outcomes.TIMED_OUT,
            hint=f"the roll-out goes on\nattach again:  {again}",
        )
    rollout = watched.succeeded[service]
    if rollout.kind == "rollback":
        raise rolled_back(sked, service, rollout)


def failed(view: View, rollout: Rollout, seen: Sequence[Failing] = ()) -> outcomes.Ended:
    """How a roll-out that stopped by itself ends a command: why, and what can be done."""
    name = view.service.name
    return outcomes.Ended(
        headline(name, rollout),
        code=outcomes.FAILED,
        hint="\n".join(
            [
                *_reasons(rollout, seen or view.failing),
                "it stands where it was:",
                *(f"  {view.place_line(place)}" for place in view.places),
                f"go back:  sked rollout undo {name}",
                f"go on:    sked rollout resume {name}",
            ]
        ),
    )


def rolled_back(sked: Session, service: str, rollback: Rollout) -> outcomes.Ended:
    """How the ``rollback`` that followed a failed roll-out ends a command: with what went wrong before it."""
    former = [item.value for item in history(sked, service) if item.value.number == rollback.number - 1]
    return outcomes.Ended(
        f"{service}: version {rollback.from_version} was rolled back to version {rollback.task_version}",
        code=outcomes.FAILED,
        hint="\n".join([line for one in former for line in (headline(service, one), *_reasons(one, ()))]),
    )


def _reasons(rollout: Rollout, failing: Sequence[Failing]) -> list[str]:
    """The rest of the reason (check output, log lines), and the failing tasks that it does not name."""
    return [*rollout.reason.splitlines()[1:], *details([one for one in failing if one.task not in rollout.reason])]


class _Watched:
    """Services that somebody watches, with what becomes of their roll-outs."""

    def __init__(self, sked: Session, names: Collection[str], begun: Mapping[str, int], shown: Shown) -> None:
        self.sked, self._names, self._shown = sked, names, shown
        self._numbers = dict(begun)
        self._seen: dict[str, dict[TaskId, Failing]] = {}
        self.succeeded: dict[str, Rollout] = {}

    def look(self) -> list[View]:
        """The services as they are now. Raises Ended when a roll-out ended otherwise than well."""
        views = look(self.sked, self._names)
        for view in views:
            self._judge(view)
        for name in self._numbers.keys() - {view.service.name for view in views}:
            raise outcomes.Ended(f"service {name} was deleted meanwhile", code=outcomes.CONFLICT)
        return views

    def show(self, views: Sequence[View], first: Sequence[str] = ()) -> Sequence[View]:
        """Show ``views``, with some lines before them, and return them."""
        self._shown.show([*first, *(line for view in views for line in view.lines(times=self._shown.in_place))])
        return views

    def _judge(self, view: View) -> None:
        name, active = view.service.name, view.active.value if view.active else None
        if active is not None:
            number = self._numbers.setdefault(name, active.number)
            if active.number == number:
                self._seen.setdefault(name, {}).update({one.task: one for one in view.failing})
                if active.state == "failed":
                    raise failed(view, active, list(self._seen[name].values()))
                return
        if name not in self._numbers or name in self.succeeded:
            return
        number = self._numbers[name]
        ended = next((item.value for item in history(self.sked, name) if item.value.number == number), None)
        if ended is not None and ended.result == "succeeded":
            self.succeeded[name] = ended
            return
        if ended is not None and ended.result == "rolled_back":
            lines = _reasons(ended, list(self._seen.get(name, {}).values()))
            back = f"then: rolled back to version {ended.from_version}; follow:  sked rollout status {name} -w"
            raise outcomes.Ended(headline(name, ended), code=outcomes.FAILED, hint="\n".join([*lines, back]))
        raise outcomes.Ended(
            headline(name, ended) if ended else f"roll-out {number} of {name} is gone",
            code=outcomes.CONFLICT,
            hint=f"what became of it:  sked rollout history {name}",
        )
