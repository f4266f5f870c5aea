"""The store's own history against the recorded one: every change must be somebody's, or the end of a lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from history.recorder import PREFIX
from history.records import Commit, Event


@dataclass(frozen=True, slots=True)
class Ended:
    """The store ended a lease at this revision, and removed its keys."""

    revision: int
    lease: str


Fault = tuple[Commit, str]


def arrange(commits: Sequence[Commit], events: Sequence[Event] | None) -> tuple[list[Commit | Ended], list[Fault]]:
    """The commits (in order) with the ends of leases among them, and what does not fit together.

    Without events the ends are not known here: they follow from what later commits and reads find missing.
    """
    if events is None:
        return list(commits), []
    arranging = _Arranging({one.name: one for one in commits})
    for event in events:
        arranging.take(event)
    arranging.finish()
    return arranging.steps, arranging.faults


class _Arranging:
    """Every commit ends with the key that names it, so what came since the one before is its own, or of no commit."""

    def __init__(self, commits: dict[str, Commit]) -> None:
        self._missing = commits
        self._leases: dict[str, str] = {}
        """The keys that stand, with the lease of each."""
        self._pending: list[Event] = []
        self._ended: set[str] = set()
        self._last = Commit("the store", 0, 0.0)
        self.steps: list[Commit | Ended] = []
        self.faults: list[Fault] = []

    def take(self, event: Event) -> None:
        if not event.key.startswith(PREFIX):
            self._pending.append(event)
            return
        name = event.key.removeprefix(PREFIX)
        commit = self._missing.pop(name, None)
        if commit is None:
            self._fault(f"{name} is in the store's history, and was not recorded (or comes twice)")
            return
        self._last = commit
        if commit.revision != event.revision:
            self._fault(f"happened at revision {event.revision}, not {commit.revision}")
        self._settle(commit)
        self.steps.append(commit)

    def finish(self) -> None:
        self._settle(None)
        for commit in self._missing.values():
            self._last = commit
            self._fault("is not in the store's history")

    def _fault(self, text: str) -> None:
        self.faults.append((self._last, text))

    def _settle(self, commit: Commit | None) -> None:
        """Tell what ``commit`` did from what happened before it."""
        puts = {put.key: put for put in commit.puts} if commit else {}
        deletes = {key for key in commit.deletes if key in self._leases} if commit else set()
        latest = {event.key: event for event in self._pending}
        for event in self._pending:
            put, last = puts.get(event.key), latest[event.key] is event
            lease = self._leases.pop(event.key, "")
            if event.digest:
                self._leases[event.key] = event.lease
                if not last or put is None or (put.digest, put.lease) != (event.digest, event.lease):
                    self._fault(f"{event} was not recorded")
                puts.pop(event.key, None)
            elif last and event.key in deletes:
                deletes.discard(event.key)
            elif lease:
                self._end(event, lease)
            else:
                self._fault(f"{event.key} vanished at revision {event.revision}, and nobody removed it")
        for key in (*puts, *deletes):
            self._fault(f"the store's history does not show the change of {key}")
        self._pending = []

    def _end(self, event: Event, lease: str) -> None:
        if lease not in self._ended:
            self._ended.add(lease)
            self.steps.append(Ended(event.revision, lease))
