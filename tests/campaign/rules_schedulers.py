"""The rules about schedulers (B)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from campaign.judge import ACCEPTED_SECONDS, Moment, Rule, Terms, lasting
from campaign.samples import Sample, Stored, below, rollout_of, service_of, task_of
from sked_core.model import codec, keys
from sked_core.model.duration import to_seconds
from sked_core.model.types import Failure, Task

AGAIN_SECONDS = 10.0
"""How long after a change by a user, a host that went or an operator's hand bounds are not held against anybody."""


def rules(terms: Terms) -> Mapping[str, Sequence[Rule]]:
    return {
        "B1": [WritersHoldLeases(), Signed()],
        "B2": [OldLeases(terms)],
        "B3": [at_most_max, AtLeastMin()],
        "B4": [OnePortEach(terms)],
        "B5": [both_keys],
        "B6": [ids_are_what_they_name],
        "B7": [RollOutsEnd()],
        "B8": [FewStarts(terms)],
        "B9": [FewRejections(terms)],
        "B10": [LostAfter(terms), FewLost(terms)],
        "B11": [NothingToDo()],
        "B12": [FewLeases(terms)],
        "B13": [AsDeclared()],
    }


def news(moment: Moment) -> Iterator[tuple[dict[str, Any], int]]:
    """The events that came with this sample, with the revision of each one's commit."""
    if not moment.is_proven or moment.proven is moment.proven_before:
        return
    for key, stored in moment.proven.items():
        if key.startswith(keys.EVENTS) and key not in moment.proven_before:
            try:
                found = json.loads(stored.value)
            except ValueError:
                continue
            for event in found if isinstance(found, list) else ():
                yield event, stored.revision


def _writer(event: Mapping[str, Any]) -> str:
    """The scheduler that an event is from; empty for anybody else."""
    kind, _, name = str(event.get("who", "")).partition(" ")
    return name if kind == "scheduler" else ""


class WritersHoldLeases:
    """Only a scheduler that announces itself, by a key that is bound to its lease, writes."""

    def __call__(self, moment: Moment) -> Iterator[str]:
        for event, revision in news(moment):
            name = _writer(event)
            key = keys.SCHEDULERS + name
            if name and not (key in moment.proven or key in moment.proven_before):
                yield f"scheduler {name} wrote {event.get('what')} at {revision}, and its lease had ended"


class Signed:
    """A task is issued by a commit that says who made it: one that came otherwise went past every fence."""

    def __call__(self, moment: Moment) -> Iterator[str]:
        if not moment.is_proven or not moment.proven_before or moment.before.store is None or _written_back(moment):
            return
        came = [
            (key, stored)
            for key, stored in moment.proven.items()
            if key.startswith(keys.TASKS) and key not in moment.proven_before
        ]
        if not came:
            return
        told = {stored.revision for key, stored in moment.proven.items() if key.startswith(keys.EVENTS)}
        for key, stored in came:
            task = task_of(stored.value)
            # What a host has rejected since was written by its agent, and Consul takes that for the key's beginning.
            rejected = task is not None and task.rejected
            if stored.created not in told and not rejected and keys.last_segment(key) not in moment.hand:
                others = {
                    other: one.value[:80] if other.startswith(keys.CHANGED) else b""
                    for other, one in moment.proven.items()
                    if one.revision == stored.created
                }
                yield f"{key} came at {stored.created} (now {stored.revision}) by a commit of nobody: {others}"


class OldLeases:
    """Nobody writes on a lease that it renewed last two thirds of the ttl ago, where the store tells when that was."""

    def __init__(self, terms: Terms) -> None:
        self._most = terms.lease_ttl * 2 / 3
        self._wrote: list[tuple[str, str, float]] = []

    def __call__(self, moment: Moment) -> Iterator[str]:
        for event, _ in news(moment):
            stored = moment.proven.get(keys.SCHEDULERS + _writer(event)) if _writer(event) else None
            if stored is not None and stored.lease:
                self._wrote.append((_writer(event), stored.lease, moment.before.at))
        if moment.sample.lease_ages:
            wrote, self._wrote = self._wrote, []
            for name, lease, at in wrote:
                age = moment.sample.lease_ages.get(lease)
                # The age is in whole seconds.
                if age is not None and at - (moment.at - age) > self._most + 1.5:
                    yield f"scheduler {name} wrote on a lease it had not renewed for {age - (moment.at - at):.0f} s"


def _tasks(store: Mapping[str, Stored]) -> dict[str, Task]:
    found = {}
    for name, stored in below(store, keys.TASKS).items():
        task = task_of(stored.value)
        if task is not None:
            found[name] = task
    return found


def _counts(store: Mapping[str, Stored]) -> Counter[tuple[str, str]]:
    return Counter(
        (one.cluster.name, one.service) for one in _tasks(store).values() if one.scheduled and not one.rejected
    )


def _written_back(moment: Moment) -> bool:
    """Whether agents may just have put back what a store had lost, past all that schedulers declare."""
    return moment.counted - moment.accepted < ACCEPTED_SECONDS


def at_most_max(moment: Moment) -> Iterator[str]:
    if (
        not moment.is_proven
        or _written_back(moment)
        or moment.proven is moment.proven_before
        or not moment.proven_before
    ):
        return
    before = _counts(moment.proven_before)
    for (cluster, name), count in _counts(moment.proven).items():
        stored = moment.proven.get(keys.SERVICES + name)
        service = service_of(stored.value) if stored else None
        if service is not None and service.max and count > max(service.max, before[cluster, name]):
            yield f"{name} has {count} tasks in {cluster}, and its max is {service.max}"


class AtLeastMin:
    """No scheduler withdraws a task that runs where fewer than ``min`` would be left."""

    def __init__(self) -> None:
        self._loose: dict[str, float] = {}
        self._all = 0.0

    def __call__(self, moment: Moment) -> Iterator[str]:
        if moment.noted("loosen") or moment.down or moment.cut or moment.asleep or moment.noted("up"):
            self._all = moment.counted
        if not moment.is_proven or moment.proven is moment.proven_before:
            return
        names = {key for key in moment.proven.keys() | moment.proven_before.keys() if key.startswith(keys.SERVICES)}
        for key in names:
            if moment.proven.get(key) != moment.proven_before.get(key):
                self._loose[key.removeprefix(keys.SERVICES)] = moment.counted
        if moment.counted - self._all < AGAIN_SECONDS or moment.hand:
            return
        running = {one.task for one in moment.sample.instances}
        was, now = _tasks(moment.proven_before), _tasks(moment.proven)
        for service in {one.service for one in was.values()}:
            stored = moment.proven.get(keys.SERVICES + service)
            found = service_of(stored.value) if stored else None
            if (
                found is None
                or moment.counted - self._loose.get(service, -1e9) < AGAIN_SECONDS
                or service in moment.mortal
            ):
                continue
            good = {name for name, one in was.items() if one.service == service and one.scheduled and name in running}
            # With those that came since the last look, which may have come up before the others were withdrawn.
            left = {name for name, one in now.items() if one.scheduled and one.service == service}
            left &= good | (now.keys() - was.keys())
            if len(left) < found.min <= len(good):
                yield f"{service}: of {len(good)} that run its scheduler leaves {len(left)}, and min is {found.min}"


class OnePortEach:
    """Two schedulers that place two services in a moment can't know of one another: the host rejects one of the
    tasks (that they do not both run is A14), and it is gone in a while."""

    def __init__(self, terms: Terms) -> None:
        self._over = lasting(terms.shared_port)

    def __call__(self, moment: Moment) -> Iterator[str]:
        holders = defaultdict(list)
        for name, task in _tasks(moment.proven).items():
            if moment.is_proven and task.port and task.scheduled and not task.rejected and moment.works(task.host):
                holders[task.host, task.port].append(name)
        shared = {
            (*place, *names): f"port {place[1]} of {place[0]} is issued to {', '.join(names)}"
            for place, names in holders.items()
            if len(names) > 1
        }
        yield from self._over(shared, moment.counted)


def both_keys(moment: Moment) -> Iterator[str]:
    if not moment.is_proven or moment.proven is moment.proven_before:
        return
    tasks = below(moment.proven, keys.TASKS)
    hosts: dict[str, list[Stored]] = defaultdict(list)
    for (_, name), stored in moment.issued.items():
        hosts[name].append(stored)
    for name in tasks.keys() ^ hosts.keys():
        if name not in moment.hand:
            yield f"of the two keys of {name} only one stands"
    for name, stored in tasks.items():
        if name in hosts and name not in moment.hand and [one.value for one in hosts[name]] != [stored.value]:
            yield f"the two keys of {name} say different things"


def ids_are_what_they_name(moment: Moment) -> Iterator[str]:
    if moment.is_proven and moment.proven is not moment.proven_before:
        for name, task in _tasks(moment.proven).items():
            if task.id != name and name not in moment.hand:
                yield f"{name} holds the record of {task.id}"


class RollOutsEnd:
    """One that gets nowhere fails within its deadline, or waits for people and says so."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[bytes, float]] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        if not moment.is_proven:
            return
        found = below(moment.proven, keys.ROLLOUTS)
        for name in self._since.keys() - found.keys():
            del self._since[name]
        for name, stored in found.items():
            rollout = rollout_of(stored.value)
            service = moment.proven.get(keys.SERVICES + name)
            declared = service_of(service.value) if service else None
            if rollout is None or declared is None or rollout.state != "running":
                self._since.pop(name, None)
                continue
            before, since = self._since.setdefault(name, (stored.value, moment.counted))
            if _progress(before) != _progress(stored.value):
                self._since[name] = (stored.value, moment.counted)
                continue
            told = getattr(declared.update, "progress_deadline", "") or "10m"
            if moment.counted - since > to_seconds(told) + 60 and moment.outage is None:
                self._since[name] = (stored.value, moment.counted)
                yield f"the roll-out of {name} gets nowhere, and neither fails nor waits"


def _progress(value: bytes) -> object:
    rollout = rollout_of(value)
    return (rollout.number, rollout.progress, rollout.promoted) if rollout else None


class FewStarts:
    """However often a task fails, it is started a few times a minute only."""

    def __init__(self, terms: Terms) -> None:
        self._most = terms.starts_a_minute
        self._starts: dict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._attempts: dict[str, int] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for one in moment.came:
            if one.mark not in moment.harmed:
                yield from self._count((one.host, f"{one.task}/{one.container}"), 1, moment.at)
        if moment.is_proven and moment.proven is not moment.proven_before:
            told = below(moment.proven, keys.FAILURES)
            self._attempts = {name: known for name, known in self._attempts.items() if name in told}
            for name, stored in told.items():
                failure = _failure(stored.value)
                if failure is not None:
                    more = failure.attempts - self._attempts.get(name, failure.attempts)
                    self._attempts[name] = failure.attempts
                    yield from self._count((failure.host, f"failures of {name}"), more, moment.at)

    def _count(self, about: tuple[str, str], more: int, at: float) -> Iterator[str]:
        times = self._starts[about]
        times.extend([at] * max(0, more))
        while times and at - times[0] > 60:
            times.popleft()
        if len(times) > self._most:
            times.clear()
            yield f"{about[1]} on {about[0]}: more than {self._most} starts in a minute"


def _failure(value: bytes) -> Failure | None:
    try:
        return codec.decode(value, Failure)
    except Exception:
        return None


class FewRejections:
    """A host that keeps rejecting a service is left alone."""

    def __init__(self, terms: Terms) -> None:
        self._most = terms.rejections_a_minute
        self._seen: dict[tuple[str, str], deque[float]] = defaultdict(deque)

    def __call__(self, moment: Moment) -> Iterator[str]:
        for event, _ in news(moment):
            if event.get("what") == "task.rejected":
                about = (str(event.get("host")), str(event.get("subject")))
                times = self._seen[about]
                times.append(moment.at)
                while moment.at - times[0] > 60:
                    times.popleft()
                if len(times) > self._most:
                    times.clear()
                    yield f"{about[0]} was given {about[1]} again and again, and rejected it each time"


class LostAfter:
    """A host is lost only after its whole time without a sign of life, while the store answered."""

    def __init__(self, terms: Terms) -> None:
        self._after = terms.lost_after
        self._absent: dict[str, float] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for event, _ in news(moment):
            if event.get("what") == "host.lost":
                host = str(event.get("host"))
                away = moment.at - self._absent.get(host, moment.at)
                if away < self._after - 1.0:
                    yield f"{host} was declared lost after {away:.1f} s of absence"
        if not moment.is_proven:
            self._absent.clear()  # the whole time begins anew
            return
        known = {key.removeprefix(keys.HOSTS) for key in moment.proven if key.startswith(keys.HOSTS)}
        here = {key.removeprefix(keys.LIVE) for key in moment.proven if key.startswith(keys.LIVE)}
        self._absent = {host: self._absent.get(host, moment.before.at) for host in known - here}


class FewLost:
    """If many vanish at once, rather the way to them is broken."""

    def __init__(self, terms: Terms) -> None:
        self._most = terms.most_lost
        self._lost: dict[str, float] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for event, _ in news(moment):
            if event.get("what") == "host.returned":
                self._lost.pop(str(event.get("host")), None)
            if event.get("what") == "host.lost":
                self._lost[str(event.get("host"))] = moment.at
                recent = [host for host, at in self._lost.items() if moment.at - at < 600]
                if len(recent) > self._most:
                    yield f"{len(recent)} hosts were declared lost: {', '.join(recent)}"


class NothingToDo:
    """With nothing to do, nothing is written: not even what is there is written again."""

    def __init__(self) -> None:
        self._still: float | None = None

    def __call__(self, moment: Moment) -> Iterator[str]:
        if moment.noted("moves"):
            self._still = None
        if self._still is not None and moment.is_proven and moment.proven is not moment.proven_before:
            changed = {
                key
                for key in moment.proven.keys() | moment.proven_before.keys()
                if _version(moment.proven.get(key)) != _version(moment.proven_before.get(key))
            }
            # Ports of this machine that others open are news of a host; markers and old events go by themselves.
            changed = {key for key in changed if not key.startswith((keys.HOSTS, keys.EVENTS, keys.CHANGED))}
            if changed:
                yield f"written with nothing to do: {', '.join(sorted(changed)[:5])}"
        if moment.noted("still"):
            self._still = moment.counted


def _version(stored: Stored | None) -> int:
    return stored.revision if stored else 0


class FewLeases:
    """As many leases as processes live, and those of the dead for as long as the store may keep them."""

    def __init__(self, terms: Terms) -> None:
        self._end = terms.leases_end
        self._killed: dict[str, float] = {}
        self._over = lasting(5.0)

    def __call__(self, moment: Moment) -> Iterator[str]:
        # Of a lease that was granted the answer may be lost with the way to the store: nobody gives that one back.
        away = [f"{name} until {moment.at}" for what in ("heal", "awake") for name in moment.noted(what)]
        self._killed |= dict.fromkeys([*moment.noted("killed"), *away], moment.counted)
        self._killed = {name: at for name, at in self._killed.items() if moment.counted - at < self._end}
        # A store that comes back counts each lease anew, and carries out what was asked of it while it hung.
        settled = moment.outage is None and moment.counted - moment.answered > self._end and moment.is_proven
        if not moment.sample.fresh:
            return
        most = len(moment.sample.processes) + len(self._killed)
        found = moment.sample.leases
        wrong = settled and found is not None and found > most
        yield from self._over({"leases": f"{found} leases for {most} processes"} if wrong else {}, moment.counted)


class AsDeclared:
    """When faults have ended: what is declared is issued, and what is issued runs, once."""

    def __call__(self, moment: Moment) -> Iterator[str]:
        if moment.noted("settled"):
            yield from undone(moment.sample, moment.mortal) if moment.is_proven else ["the store does not answer"]


def undone(sample: Sample, mortal: Collection[str] = ()) -> list[str]:
    """What is not as declared: tasks that lack or are too many, what runs without being issued or is not running."""
    if sample.store is None:
        return ["the store does not answer"]
    found, tasks = [], _tasks(sample.store)
    for name, stored in below(sample.store, keys.SERVICES).items():
        service = service_of(stored.value)
        good = [one for one in tasks.values() if one.service == name and one.scheduled and not one.rejected]
        if service and name not in mortal and len(good) != service.desired:
            found.append(f"{name}: {service.desired} are declared, {len(good)} are issued")
        if service and name not in mortal:
            versions = {one.task_definition.version for one in good} - {service.task_version}
            found += [f"{name} still has tasks of version {version}" for version in sorted(versions)]
    found += [
        f"{name} is being stopped" for name, task in tasks.items() if not task.scheduled and task.service not in mortal
    ]
    for name, stored in below(sample.store, keys.ROLLOUTS).items():
        rollout = rollout_of(stored.value)
        if rollout and rollout.state == "running" and name not in mortal:
            found.append(f"{name} is being rolled out")
    wanted = {(task.host, name) for name, task in tasks.items() if not task.rejected}
    running = Counter((one.host, one.task) for one in sample.instances)
    spared = {(task.host, name) for name, task in tasks.items() if task.service in mortal}
    for host, name in sorted((wanted ^ running.keys()) - spared):
        found.append(f"{name} on {host} is {'issued' if (host, name) in wanted else 'running'} only")
    return found
