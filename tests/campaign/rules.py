"""All rules, by the letters of docs/guarantees.md, and those about agents (A)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from campaign import rules_resources, rules_schedulers
from campaign.judge import CALM_SECONDS, Moment, Rule, Terms, lasting
from campaign.samples import Instance, Stored, task_of
from sked_core.model import keys
from sked_core.model.types import Task


def all_rules(terms: Terms) -> Mapping[str, Sequence[Rule]]:
    """Fresh ones: some remember what they saw."""
    return {
        "A1": [StopsNeedProof()],
        "A2": [outages_start_and_stop_nothing],
        "A3": [WithoutAnAgent()],
        "A4": [ReadsFirst()],
        "A5": [one_at_a_time],
        "A6": [NoOrphans(terms), strangers_stay],
        "A7": [innocents_live],
        "A8": [StopsAreTotal(terms)],
        "A9": [garbage_stops_nothing],
        "A10": [Brake(terms)],
        "A11": [OneContainerEach(terms)],
        "A12": [Due()],
        "A13": [OneHostEach(terms)],
        "A14": [ports_after_their_holders],
        **rules_schedulers.rules(terms),
        **rules_resources.rules(terms),
    }


def named(one: Instance) -> str:
    return f"{one.task}/{one.container} on {one.host} ({one.mark[-12:]})"


def in_order(stored: Stored | None) -> bool:
    """Whether a record says that its task is to run."""
    task = task_of(stored.value) if stored else None
    return task is not None and task.scheduled and not task.rejected


def excused(moment: Moment, one: Instance) -> bool:
    """Whether it may vanish by itself, or by the row's own doing."""
    task = _record(moment, one)
    mortal = bool(task and task.service in moment.mortal)
    return one.mark in moment.harmed or mortal or one.task in moment.hand


def _record(moment: Moment, one: Instance) -> Task | None:
    place = (one.host, one.task)
    stored = moment.issued.get(place) or moment.issued_before.get(place) or moment.born.get(one.mark)
    return task_of(stored.value) if stored else None


class StopsNeedProof:
    """What vanished without anybody's doing must have been withdrawn, rewritten or moved, in a store to be believed."""

    def __init__(self) -> None:
        self._pending: dict[Instance, Stored | None] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for one in moment.gone:
            if not excused(moment, one) and in_order(moment.issued_before.get((one.host, one.task))):
                self._pending[one] = moment.born.get(one.mark)
        accepted = bool(moment.noted("accept"))
        if not (moment.is_proven or accepted):
            return
        pending, self._pending = self._pending, {}
        for one, born in pending.items():
            now = (moment.issued_before if accepted else moment.issued).get((one.host, one.task))
            if excused(moment, one) or one in moment.sample.instances:
                continue
            unchanged = born is not None and now is not None and now.revision == born.revision and in_order(now)
            if unchanged and self._owner(moment, one) == one.host:
                yield f"{named(one)} ended, though its record stands as it was when it began"

    @staticmethod
    def _owner(moment: Moment, one: Instance) -> str:
        stored = moment.proven.get(keys.TASKS + one.task)
        task = task_of(stored.value) if stored else None
        return task.host if task else one.host


def outages_start_and_stop_nothing(moment: Moment) -> Iterator[str]:
    if moment.outage is None or moment.counted - moment.outage < CALM_SECONDS:
        return
    for one in moment.gone:
        if not excused(moment, one) and in_order(moment.issued.get((one.host, one.task))):
            yield f"{named(one)} ended while the store was away"
    for one in moment.came:
        again = (one.host, one.task) in moment.at_outage - moment.harmed_places
        if again and not excused(moment, one):
            yield f"{named(one)} was started while the store was away, though it ran when that began"


class WithoutAnAgent:
    """The death of an agent is invisible: what it had begun ends within seconds, and nothing else happens."""

    def __call__(self, moment: Moment) -> Iterator[str]:
        for one in moment.gone:
            since = moment.down.get(one.host)
            if since is not None and moment.counted - since > CALM_SECONDS and not excused(moment, one):
                yield f"{named(one)} ended while its agent was dead"
        for one in moment.came:
            since = moment.down.get(one.host)
            if since is not None and moment.counted - since > 2 * CALM_SECONDS and not excused(moment, one):
                yield f"{named(one)} began while its agent was dead"


class ReadsFirst:
    """An agent that begins (or wakes up after a while) starts nothing before the store could be read."""

    def __init__(self) -> None:
        self._fresh: dict[str, float] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for host in moment.noted("up"):
            self._fresh[host] = moment.counted
        for one in moment.came:
            if one.host in self._fresh and moment.outage is not None:
                yield f"{named(one)} began though its agent, which is new, can't have read the store"
        if moment.is_proven and moment.outage is None:
            self._fresh = {host: at for host, at in self._fresh.items() if host in moment.cut}


def one_at_a_time(moment: Moment) -> Iterator[str]:
    counts = Counter((one.host, one.task, one.container) for one in moment.sample.instances)
    for (host, task, container), count in counts.items():
        if count > 1:
            yield f"{task}/{container} runs {count} times on {host}"


class NoOrphans:
    """What is not issued to a host does not stay there while its agent works."""

    def __init__(self, terms: Terms) -> None:
        self._over = lasting(terms.orphan)

    def __call__(self, moment: Moment) -> Iterator[str]:
        orphans: dict[object, str] = {}
        if moment.is_proven:
            orphans = {
                one: f"{named(one)} runs without being issued"
                for one in moment.sample.instances
                if (one.host, one.task) not in moment.issued and moment.works(one.host)
            }
        yield from self._over(orphans, moment.counted)


def strangers_stay(moment: Moment) -> Iterator[str]:
    if moment.sample.engine and moment.deaf is None:
        for one in moment.strangers & moment.before.containers - moment.sample.containers:
            yield f"container {one[:12]}, which is not Sked's, is gone"


def innocents_live(moment: Moment) -> Iterator[str]:
    for pid, started in moment.before.innocents - moment.sample.innocents:
        yield f"process {pid} (started at {started}), which is not Sked's, was ended"


class StopsAreTotal:
    """Nothing is left of a task whose keys were removed by its agent, and a stop comes to its end."""

    def __init__(self, terms: Terms) -> None:
        self._left, self._stopping = lasting(2.0), lasting(terms.stop)
        self._withdrawn: set[tuple[str, str]] = set()

    def __call__(self, moment: Moment) -> Iterator[str]:
        if not moment.is_proven:
            return
        for place, stored in moment.issued.items():
            task = task_of(stored.value)
            (self._withdrawn.add if task and not task.scheduled else self._withdrawn.discard)(place)
        # What is removed while its agent can't do it is removed by a scheduler, which has given the host up (see A6).
        self._withdrawn -= {place for place in self._withdrawn - moment.issued.keys() if not moment.works(place[0])}
        running = [one for one in moment.sample.instances if moment.works(one.host)]
        yield from self._left(
            {
                one: f"{named(one)} runs on though its keys were removed"
                for one in running
                if (one.host, one.task) in self._withdrawn - moment.issued.keys() and one.task not in moment.hand
            },
            moment.counted,
        )
        yield from self._stopping(
            {
                one: f"{named(one)} is being stopped"
                for one in running
                if (one.host, one.task) in self._withdrawn & moment.issued.keys()
            },
            moment.counted,
        )
        self._withdrawn &= {(one.host, one.task) for one in moment.sample.instances} | moment.issued.keys()


def garbage_stops_nothing(moment: Moment) -> Iterator[str]:
    for one in moment.gone if moment.is_proven else ():
        stored = moment.issued.get((one.host, one.task))
        before = moment.issued_before.get((one.host, one.task))
        if stored and before == stored and task_of(stored.value) is None and one.mark not in moment.harmed:
            yield f"{named(one)} ended over a record that can't be read"


class Brake:
    """Of many records that vanish from a host at once, nothing is stopped for a while."""

    def __init__(self, terms: Terms) -> None:
        self._seconds = terms.brake
        self._held: dict[tuple[str, str], float] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        if moment.is_proven:
            before: dict[str, set[str]] = {}
            for (host, task), stored in moment.issued_before.items():
                if in_order(stored):
                    before.setdefault(host, set()).add(task)
            for host, tasks in before.items():
                # An agent that has stopped a task removes both keys: only what it did not remove itself has vanished.
                absent = {
                    task for task in tasks if (host, task) not in moment.issued and keys.TASKS + task in moment.proven
                }
                if len(absent) > max(3, 0.3 * len(tasks)):
                    self._held |= dict.fromkeys(((host, task) for task in absent), moment.before.at)
            for place in [place for place in self._held if place in moment.issued]:
                del self._held[place]
        for one in moment.gone:
            since = self._held.get((one.host, one.task))
            if since is not None and moment.at - since < self._seconds and one.mark not in moment.harmed:
                yield f"{named(one)} ended {moment.at - since:.1f} s after many records vanished at once"


class OneContainerEach:
    """Whatever an engine did not say, in the end a task has one container: no copy of an unknown start is left."""

    def __init__(self, terms: Terms) -> None:
        self._over = lasting(terms.doubles)

    def __call__(self, moment: Moment) -> Iterator[str]:
        everything = [one for one in (*moment.sample.instances, *moment.sample.ended) if "/" not in one.mark]
        counts = Counter((one.host, one.task, one.container) for one in everything if moment.works(one.host))
        yield from self._over(
            {place: f"{place[1]}/{place[2]} has {count} containers" for place, count in counts.items() if count > 1},
            moment.counted,
        )


class Due:
    """What hangs holds up nothing else: the row says what has to run by when."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def __call__(self, moment: Moment) -> Iterator[str]:
        for subject in moment.noted("due"):
            task, seconds = subject.split()
            self._due[task] = moment.counted + float(seconds)
        for one in moment.sample.instances:
            self._due.pop(one.task, None)
        for task in [task for task, at in self._due.items() if moment.counted > at]:
            del self._due[task]
            yield f"{task} was not started in time"


class OneHostEach:
    """A task runs where ``state/tasks/`` says; any other host stops its copy once it can know."""

    def __init__(self, terms: Terms) -> None:
        self._over = lasting(terms.doubles)

    def __call__(self, moment: Moment) -> Iterator[str]:
        strays: dict[object, str] = {}
        if moment.is_proven:
            for one in moment.sample.instances:
                stored = moment.proven.get(keys.TASKS + one.task)
                task = task_of(stored.value) if stored else None
                if task is not None and task.host != one.host and moment.works(one.host):
                    strays[one] = f"{named(one)} runs on, though it is on {task.host} now"
        yield from self._over(strays, moment.counted)


def ports_after_their_holders(moment: Moment) -> Iterator[str]:
    running = [(one, _record(moment, one)) for one in moment.sample.instances]
    holders = [(one.host, task.port, one) for one, task in running if task is not None and task.port]
    for one in moment.came:
        task = _record(moment, one)
        for host, port, other in holders:
            if task and task.port == port and host == one.host and other.task != one.task:
                yield f"{named(one)} was given port {port}, which {named(other)} still has"
