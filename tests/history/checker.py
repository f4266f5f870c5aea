"""The judge: a pure function from a history to all that must not have happened in it.

The commits are replayed in the store's order on a model of our own, and every rule is asked at every commit. A rule
also counts how often it was asked: a history in which nothing happened proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from history.evidence import Ended, arrange
from history.model import Model, Pair, host_of
from history.records import Commit, History, Look
from sked_core.model import keys

RULES = {
    "acknowledged": "an acknowledged commit is in the store, at the revision that was told",
    "refused": "a commit that was refused has left nothing in the store",
    "order": "a commit that was answered before another one began has the lower revision",
    "guards": "every check and fence of a commit held at its revision, and no ended lease was used (no lost update)",
    "taken": "a lock is taken only where no other lease holds it",
    "holder": "a scheduler writes a task only as holder, at that revision, of the lock of the task's service",
    "one host": "no task id stands under two hosts, and both keys of a task change together",
    "moved": "a task leaves a host only when it was rejected, its host was away, or its agent removed it",
    "max": "no commit issues a task beyond its service's max, tasks that are being stopped included",
    "whole": "what processes recorded and what the store itself shows are the same",
}
BACK_SECONDS = 30.0
"""For how long after its return a host may still be taken for lost: a lease's time, and a pause within it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """``rule`` is one of RULES, ``commit`` the name of the commit that broke it (or of what else was found)."""

    rule: str
    revision: int
    commit: str
    text: str

    def __str__(self) -> str:
        return f"[{self.rule}] revision {self.revision}, {self.commit}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """``asked``: how often each rule was put to the test. ``taken_over``: locks that somebody took whose last holder
    had not given them back."""

    violations: list[Violation] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    taken_over: int = 0


def check(history: History) -> Verdict:
    """The verdict on a history. Pure."""
    verdict = Verdict()
    _Outcomes(history, verdict).check()
    _Replay(history, verdict).check()
    return verdict


class _Outcomes:
    """What processes were told, against what the store has."""

    def __init__(self, history: History, verdict: Verdict) -> None:
        self._history, self._verdict = history, verdict

    def check(self) -> None:
        for one in self._history.commits:
            if one.end == "ok":
                self._ask("acknowledged", one, one.revision == one.told, f"told {one.told}, stands at {one.revision}")
            elif one.end in ("conflict", "lease lost", "refused"):
                self._ask("refused", one, not one.revision, f"was refused ({one.end}), but is there")
        for name in self._history.strays:
            self._verdict.violations.append(Violation("whole", 0, name, "nobody recorded it, but it is in the store"))
        soonest, who = float("inf"), ""
        for one in reversed(self._history.effective):
            self._ask("order", one, soonest >= one.began, f"began after {who} had been answered, which comes later")
            if one.end == "ok" and one.ended < soonest:
                soonest, who = one.ended, one.name

    def _ask(self, rule: str, one: Commit, holds: bool, text: str) -> None:
        self._verdict.asked[rule] += 1
        if not holds:
            self._verdict.violations.append(Violation(rule, one.revision, one.name, text))


class _Replay:
    """The rules that are asked commit by commit."""

    def __init__(self, history: History, verdict: Verdict) -> None:
        self._history, self._verdict = history, verdict
        self._model = Model()
        self._back: dict[str, float] = {}
        """When each host was last announced, after it had been away."""
        self._at: Commit | None = None

    def check(self) -> None:
        steps, faults = arrange(self._history.effective, self._history.events)
        for where, text in faults:
            self._violate("whole", where.revision, where.name, text)
        if self._history.events is not None:
            self._verdict.asked["whole"] += len(self._history.events)
        looks = sorted(self._history.looks, key=lambda look: look.revision)
        for step in steps:
            while looks and looks[0].revision < step.revision:
                self._compare(looks.pop(0))
            match step:
                case Ended(_, lease):
                    self._model.end(lease)
                case Commit():
                    self._commit(step)
        for look in looks:
            self._compare(look)

    def _violate(self, rule: str, revision: int, who: str, text: str) -> None:
        self._verdict.violations.append(Violation(rule, revision, who, text))

    def _ask(self, rule: str, holds: bool, text: str) -> None:
        assert self._at is not None
        self._verdict.asked[rule] += 1
        if not holds:
            self._violate(rule, self._at.revision, self._at.name, text)

    def _commit(self, commit: Commit) -> None:
        self._at = commit
        self._notice_ended_leases(commit)
        self._check_guards(commit)
        before = dict(self._model.counted)
        if commit.by_scheduler:
            self._check_holder(commit)
            self._check_moved(commit)
        self._note_hosts(commit)
        self._check_taken(commit)
        self._model.apply(commit)
        self._check_pairs(commit)
        self._check_max(commit, before)

    def _notice_ended_leases(self, commit: Commit) -> None:
        """Where the store keeps no history: a leased key that it has just confirmed to be gone went with its lease."""
        if self._history.events is None:
            for key, revision in commit.checks.items():
                if revision == 0 and (lease := self._model.lease(key)):
                    self._model.end(lease)

    def _check_guards(self, commit: Commit) -> None:
        model = self._model
        for key, revision in commit.checks.items():
            stands = model.revision(key)
            self._ask("guards", stands == revision, f"{key} was checked at {revision}, stood at {stands}")
        for key, lease in commit.fences.items():
            bound = model.lease(key)
            self._ask("guards", bound == lease, f"{key} was fenced by {lease}, was bound to {bound or 'nothing'}")
        for put in commit.puts:
            if put.lease:
                self._ask(
                    "guards", put.lease not in model.ended, f"{put.key} was bound to {put.lease}, which had ended"
                )

    def _check_taken(self, commit: Commit) -> None:
        for put in commit.puts:
            if put.key.startswith(keys.LOCKS):
                holder = self._model.lease(put.key)
                self._ask("taken", holder in ("", put.lease), f"took {put.key}, which {holder} was holding")
                self._verdict.taken_over += put.key in self._model.lapsed

    def _tasks_written(self, commit: Commit) -> Iterator[tuple[str, str]]:
        """The key and the service of each task key that the commit writes or removes."""
        for put in commit.puts:
            if put.key.startswith(keys.STATE) and put.facts:
                yield put.key, put.facts["service"]
        for key in commit.deletes:
            kept = self._model.keys.get(key)
            if key.startswith(keys.STATE) and kept is not None and kept.put.facts:
                yield key, kept.put.facts["service"]

    def _check_holder(self, commit: Commit) -> None:
        for key, service in self._tasks_written(commit):
            lock = keys.service_lock(service)
            kept = self._model.keys.get(lock)
            fenced = commit.fences.get(lock, "")
            holds = kept is not None and kept.process == commit.process and fenced == kept.put.lease != ""
            held = f"{kept.process} by {kept.put.lease}" if kept else "nobody"
            self._ask("holder", holds, f"wrote {key} with fence {fenced or 'none'}, while {lock} was held by {held}")

    def _check_moved(self, commit: Commit) -> None:
        written = {put.key for put in commit.puts}
        for key in commit.deletes:
            kept = self._model.keys.get(key)
            if key.startswith(keys.HOST_TASKS) and key not in written and kept is not None and kept.put.facts:
                host = host_of(key)
                away = keys.live(host) not in self._model.keys
                lately = commit.began - self._back.get(host, float("-inf")) < BACK_SECONDS
                free = kept.put.facts["rejected"] or away or lately
                self._ask("moved", bool(free), f"took {key} away, though {host} was there and had not rejected it")

    def _note_hosts(self, commit: Commit) -> None:
        for put in commit.puts:
            if put.key.startswith(keys.LIVE) and put.key not in self._model.keys:
                self._back[put.key.removeprefix(keys.LIVE)] = min(commit.ended, commit.began + BACK_SECONDS)

    def _check_pairs(self, commit: Commit) -> None:
        changed = [*commit.deletes, *(put.key for put in commit.puts)]
        for task_id in {keys.last_segment(key) for key in changed if key.startswith(keys.STATE)}:
            task = self._model.keys.get(keys.task(task_id))
            hosts = self._model.hosts_of.get(task_id, set())
            if task is None or task.put.facts is None:
                self._ask("one host", not hosts, f"{task_id} stands under {_list(hosts)}, but not among the tasks")
                continue
            named = task.put.facts["host"]
            mate = self._model.keys.get(keys.host_task(named, task_id))
            same = mate is not None and (mate.revision, mate.put.digest) == (task.revision, task.put.digest)
            whole = hosts == {named} and same
            self._ask("one host", whole, f"{task_id} says {named}, and stands under {_list(hosts)}; same: {same}")

    def _check_max(self, commit: Commit, before: dict[Pair, int]) -> None:
        for pair, count in self._model.counted.items():
            if count <= before.get(pair, 0):
                continue
            service = self._model.keys.get(keys.service(pair[1]))
            most = service.put.facts["max"] if service is not None and service.put.facts else 0
            self._ask("max", count <= most, f"made {count} tasks of {pair[1]} in {pair[0]}, of at most {most}")

    def _compare(self, look: Look) -> None:
        """A snapshot shows what the replay has led to, but for leases whose end was not seen before."""
        self._verdict.asked["whole"] += 1
        ours = dict(self._model.below(look.prefix))
        for key in sorted(ours.keys() | look.entries.keys()):
            kept, seen = ours.get(key), look.entries.get(key)
            if kept is not None and seen is None and kept.put.lease and self._history.events is None:
                self._model.end(kept.put.lease)
            elif kept is None or seen is None:
                text = f"{key} is {'missing' if seen is None else 'there'}, unlike what was recorded"
                self._violate("whole", look.revision, f"a read of {look.prefix}", text)
            elif (kept.revision, kept.put.lease, kept.put.digest) != (seen.revision, seen.lease, seen.digest):
                text = f"{key} stands as {seen}, was recorded as {kept}"
                self._violate("whole", look.revision, f"a read of {look.prefix}", text)


def _list(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names)) or "no host"
