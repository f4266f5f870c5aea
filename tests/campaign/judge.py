"""What must hold (docs/guarantees.md), asked of what a monitor saw. Pure: no clock, no store, no engine.

A judge folds over samples. Each rule gets a Moment: a sample, the one before it, and what all earlier ones came to.
It can excuse what happens between two looks, a fifth of a second; what it reports is a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from campaign.samples import Instance, Note, Sample, Stored, issued
from sked_core.model import keys

Place = tuple[str, str]
"""Host and task."""


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.1f} s: {self.what}"


@dataclass(frozen=True, slots=True)
class Terms:
    """Bounds, in seconds unless they say else. They are generous: a busy machine is no violation."""

    stop: float = 60.0
    orphan: float = 90.0
    doubles: float = 90.0
    brake: float = 9.0
    lost_after: float = 60.0
    starts_a_minute: int = 10
    rejections_a_minute: int = 6
    most_lost: int = 1
    lease_ttl: float = 15.0
    leases_end: float = 45.0
    connections: int = 8
    shared_port: float = 30.0


@dataclass(slots=True)
class Moment:
    """``proven``: the last store seen that was the right one; ``is_proven``: this sample's is. ``gone`` and ``came``
    since the sample before; ``born``: each instance's record when it was first seen, by mark. ``counted``: the time by
    which windows of seconds are judged (LATE_SECONDS); ``down`` and all that follows say since when by it."""

    sample: Sample
    before: Sample
    counted: float = 0.0
    proven: Mapping[str, Stored] = field(default_factory=dict)
    proven_before: Mapping[str, Stored] = field(default_factory=dict)
    issued: Mapping[Place, Stored] = field(default_factory=dict)
    issued_before: Mapping[Place, Stored] = field(default_factory=dict)
    is_proven: bool = False
    gone: frozenset[Instance] = frozenset()
    came: frozenset[Instance] = frozenset()
    born: dict[str, Stored | None] = field(default_factory=dict)
    down: dict[str, float] = field(default_factory=dict)
    cut: dict[str, float] = field(default_factory=dict)
    asleep: dict[str, float] = field(default_factory=dict)
    harmed: set[str] = field(default_factory=set)
    harmed_places: set[Place] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    mortal: set[str] = field(default_factory=set)
    hand: dict[str, float] = field(default_factory=dict)
    outage: float | None = None
    answered: float = -1e9
    accepted: float = -1e9
    deaf: float | None = None
    at_outage: frozenset[Place] = frozenset()

    @property
    def at(self) -> float:
        return self.sample.at

    def works(self, host: str) -> bool:
        """Whether nothing keeps its agent from its work."""
        return not (host in self.down or host in self.cut or host in self.asleep or self.outage or self.deaf)

    def noted(self, what: str) -> list[str]:
        return [note.subject for note in self.sample.notes if note.what == what]


LATE_SECONDS = 0.4
"""Of the time between two looks no more than this counts where something may last for so many seconds and no longer. A
monitor that comes later than that runs on a machine which is as late with what is to happen meanwhile, and nobody
has seen whether what was wrong was so all the time: a window of seconds is one of so many looks."""
ACCEPTED_SECONDS = 90.0
"""How long agents may take to write back what a store has lost, as an operator has told them to."""
HAND_SECONDS = 120.0
"""How long a task that somebody changed by hand counts as changed."""
Rule = Callable[[Moment], Iterable[str]]
CALM_SECONDS = 5.0
"""How long what was said of the agents and the store goes on to count: things come back in their own time."""


class Judge:
    """Asks every rule of every sample. ``rules``: functions by the letter of what they hold; None: all there are."""

    def __init__(self, terms: Terms | None = None, rules: Mapping[str, Sequence[Rule]] | None = None) -> None:
        from campaign.rules import all_rules

        self.terms = terms or Terms()
        self._rules = all_rules(self.terms) if rules is None else rules
        self._moment: Moment | None = None
        self._uid: bytes | None = None
        self._highest = 0
        self._accepted = False
        self._began = 0.0
        self.asked = 0

    def look(self, sample: Sample) -> list[Violation]:
        """The violations that this sample shows. Samples come in the order of time."""
        moment = self._next(sample)
        self.asked += 1
        found = []
        for name, rules in self._rules.items():
            for rule in rules:
                found += [Violation(name, sample.at - self._began, what) for what in rule(moment)]
        return found

    def _next(self, sample: Sample) -> Moment:
        last = self._moment
        if last is None:
            self._began = sample.at
            last = Moment(sample, sample, sample.at)
            last.came = sample.instances
        moment = Moment(
            sample,
            last.sample,
            last.counted + min(sample.at - last.sample.at, LATE_SECONDS),
            proven=last.proven,
            proven_before=last.proven,
            issued=last.issued,
            issued_before=last.issued,
            gone=last.sample.instances - sample.instances,
            came=sample.instances - last.sample.instances,
            born=last.born,
            down=last.down,
            cut=last.cut,
            asleep=last.asleep,
            harmed=last.harmed,
            harmed_places=last.harmed_places,
            strangers=last.strangers,
            mortal=last.mortal,
            hand=last.hand,
            outage=last.outage,
            answered=last.answered,
            accepted=last.accepted,
            deaf=last.deaf,
            at_outage=last.at_outage,
        )
        for task in [task for task, since in moment.hand.items() if moment.counted - since > HAND_SECONDS]:
            del moment.hand[task]
        for note in sample.notes:
            self._take(moment, note)
        if sample.store is not None and self._believe(sample, sample.store):
            moment.is_proven, moment.proven, moment.issued = True, sample.store, issued(sample.store)
        for one in moment.came:
            moment.born[one.mark] = None
        for one in sample.instances:
            if moment.born.get(one.mark) is None and moment.is_proven:
                moment.born[one.mark] = moment.issued.get((one.host, one.task))
        self._moment = moment
        return moment

    def _believe(self, sample: Sample, store: Mapping[str, Stored]) -> bool:
        """Whether this is the store that it was, and no older state of it."""
        uid = store.get(keys.STORE_UID)
        if self._accepted and uid is not None:
            self._uid, self._highest, self._accepted = uid.value, sample.revision, False
        if self._uid is None and uid is not None:
            self._uid = uid.value
        if uid is None or uid.value != self._uid or sample.revision < self._highest:
            return False
        self._highest = sample.revision
        return True

    def _take(self, moment: Moment, note: Note) -> None:
        begins = {"down": moment.down, "cut": moment.cut, "asleep": moment.asleep}
        ends = {"up": moment.down, "heal": moment.cut, "awake": moment.asleep}
        if note.what in begins:
            begins[note.what][note.subject] = moment.counted
        elif note.what in ends:
            ends[note.what].pop(note.subject, None)
        elif note.what == "harm":
            moment.harmed.add(note.subject)
            everybody = moment.before.instances | moment.sample.instances
            moment.harmed_places |= {(one.host, one.task) for one in everybody if one.mark == note.subject}
        elif note.what == "stranger":
            moment.strangers.add(note.subject)
        elif note.what == "mortal":
            moment.mortal.add(note.subject)
        elif note.what == "hand":
            moment.hand[note.subject] = moment.counted
        elif note.what == "accept":
            self._accepted, moment.accepted = True, moment.counted
        elif note.what in ("outage", "answers"):
            moment.outage = moment.counted if note.what == "outage" else None
            moment.answered = moment.counted
            moment.at_outage = frozenset((one.host, one.task) for one in moment.before.instances)
        elif note.what in ("deaf", "hears"):
            moment.deaf = moment.counted if note.what == "deaf" else None


def judge(history: Iterable[Sample], terms: Terms | None = None) -> list[Violation]:
    """All violations in a history."""
    judging = Judge(terms)
    return [violation for sample in history for violation in judging.look(sample)]


def lasting(seconds: float) -> Callable[[dict[object, str], float], Iterator[str]]:
    """A filter for what is wrong only if it lasts: give it what is the case now, by what it is about, and the time as
    it counts."""
    since: dict[object, float] = {}

    def over(now: dict[object, str], at: float) -> Iterator[str]:
        for gone in since.keys() - now.keys():
            del since[gone]
        for about, what in now.items():
            if at - since.setdefault(about, at) > seconds:
                since[about] = at  # said once in a while, not at each look
                yield f"{what}, for more than {seconds:g} s"

    return over
