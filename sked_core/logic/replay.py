"""Decisions run again from what was kept of them: by the same scheduler, to the same bytes; or by another one, to see
where it would differ. Pure: nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sked_core.errors import InvalidValue, PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.decision import Answer, Scene, answer_of, decide, inputs_digest, scene_of, terms_of
from sked_core.model.decisions import Batch, Seen, Shadow

OTHER_ORDER = "the same hosts in another order"
OTHER_ANSWER = "it can't be compared: what was decided is not what its digest stands for"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one batch. ``problem``: why it can't be run again, or why the scheduler failed; ``same``: whether
    it came to the same bytes; ``differences``: what did not, in words; ``gain``: by the score of the scheduler that was
    asked now, how much better its choice is than what was done."""

    problem: str = ""
    same: bool = False
    answer: Answer | None = None
    differences: tuple[str, ...] = ()
    moved: int = 0
    gain: float = 0.0


def replay(batch: Batch, service: str, scheduler: Scheduler, name: str) -> Replayed:
    """Run ``batch`` of ``service`` again by ``scheduler``, called ``name``. What was kept is believed only if it is
    what the record's digest says."""
    if batch.seen is None:
        return Replayed(problem=f"it can't be run again: {batch.left_out or 'its inputs are not there'}")
    if inputs_digest(batch, service) != batch.digest:
        return Replayed(problem="it can't be run again: its inputs are not those that its digest stands for")
    if not _adds_up(batch, batch.seen):
        return Replayed(problem=OTHER_ANSWER)
    if not batch.omitted and not batch.silent and answer_of(batch).digest() != batch.answer:
        return Replayed(problem=OTHER_ANSWER)
    try:
        answer = decide(scene_of(batch.asked, batch.seen, batch.cluster, service), scheduler, name)
        gain = _worth(batch, service, scheduler, answer.hosts) - _worth(batch, service, scheduler, batch.hosts)
    except (InvalidValue, PluginError) as error:
        return Replayed(problem=str(error))
    if answer.digest() == batch.answer:
        return Replayed(same=True, answer=answer) if _begins(batch, answer) else Replayed(problem=OTHER_ANSWER)
    moved = differing(batch.hosts, answer.hosts[: len(batch.hosts)] if batch.omitted else answer.hosts)
    return Replayed(answer=answer, differences=tuple(_differences(batch, answer)), moved=moved, gain=gain)


def _adds_up(batch: Batch, seen: Seen) -> bool:
    """Whether what is kept and what is said to be left out are together all tasks, and the reasons of all hosts."""
    tasks = len(batch.hosts) + batch.omitted + batch.waiting
    hosts = len(seen.hosts) if batch.waiting else 0
    return tasks == batch.asked.count and len(batch.refusals) + batch.silent == hosts


def _begins(batch: Batch, answer: Answer) -> bool:
    """Whether ``answer``, which is what was decided, is that of which a part is kept in ``batch``."""
    kept = answer_of(batch)
    reasons = all(answer.refusals.get(host) == why for host, why in kept.refusals.items())
    return reasons and kept.waiting == answer.waiting and kept.hosts == answer.hosts[: len(kept.hosts)]


def differing(hosts: Sequence[str], others: Sequence[str]) -> int:
    """How many tasks are elsewhere: like tasks on one host are the same, in whatever order they were placed."""
    one, other = Counter(hosts), Counter(others)
    return max((one - other).total(), (other - one).total())


def _differences(batch: Batch, answer: Answer) -> list[str]:
    """Where the tasks go now, and did not then; host by host, since like tasks are interchangeable."""
    then, now = Counter(batch.hosts), Counter(answer.hosts[: len(batch.hosts)] if batch.omitted else answer.hosts)
    said = [f"{host}: {then[host]} then, {now[host]} now" for host in sorted({*then, *now}) if then[host] != now[host]]
    if not said and tuple(batch.hosts) != answer.hosts[: len(batch.hosts)]:
        said.append(OTHER_ORDER)
    if answer.waiting != batch.waiting:
        said.append(f"waiting: {batch.waiting} then, {answer.waiting} now")
    before = answer_of(batch).refusals
    for host in sorted({*before, *answer.refusals}) if not batch.silent else ():
        old, new = "; ".join(before.get(host, ())), "; ".join(answer.refusals.get(host, ()))
        if old != new and batch.waiting and answer.waiting:
            said.append(f"{host}: said {old or 'nothing'} then, {new or 'nothing'} now")
    return said or ["what is no longer kept of it"]


def _worth(batch: Batch, service: str, scheduler: Scheduler, hosts: Sequence[str]) -> float:
    """The sum of the scores of ``hosts`` when they are chosen one after another; 0 for a scheduler without a score."""
    assert batch.seen is not None
    if batch.omitted or not hasattr(scheduler, "terms"):
        return 0.0
    scene: Scene = scene_of(batch.asked, batch.seen, batch.cluster, service)
    total = 0.0
    for number, host in enumerate(hosts):
        if host in scene.fleet.hosts:
            wishes = scene.fleet.wishes(host, scene.demand, scene.allowed)
            terms = terms_of(scheduler, scene.demand, scene.fleet.candidate(host, scene.demand))
            total += sum(wishes.values()) + sum(terms.values())
            scene.place(host, number)
    return total


def shadow_of(batch: Batch, service: str, scheduler: Scheduler, name: str) -> Shadow:
    """What ``scheduler``, called ``name``, which is not the one that decided, makes of the inputs of ``batch``."""
    found = replay(batch, service, scheduler, name)
    if found.answer is None:
        return Shadow(scheduler=name, fault=found.problem)
    return Shadow(
        scheduler=name,
        hosts=list(found.answer.hosts),
        waiting=found.answer.waiting,
        differs=found.moved,
        gain=found.gain,
    )
