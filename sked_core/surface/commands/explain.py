"""``sked explain``: why tasks are where they are, why others wait, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from sked_core.client.looking import decided, explaining
from sked_core.client.looking.explaining import Explained, Found
from sked_core.client.session import Session
from sked_core.logic.decision import asked_of
from sked_core.model.decisions import Batch, Decision
from sked_core.model.spec import plain
from sked_core.model.types import task_id
from sked_core.model.wording import counted
from sked_core.surface import verdicts
from sked_core.surface.completing import services_and_tasks
from sked_core.surface.options import command, output_option, session, watch_option
from sked_core.surface.presenting import present_lines, print_lines
from sked_core.surface.render import emit, note, out, table


@command(
    "explain",
    "sked explain web",
    "sked explain default-web-3-0  # why this task is where it is",
    "sked explain web --history",
    "sked explain web --decision 12",
)
@click.argument("name", metavar="SERVICE|TASK", shell_complete=services_and_tasks)
@click.option("--all", "every", is_flag=True, help="A line for each host, however many there are.")
@click.option("--history", is_flag=True, help="The decisions that are kept: when, by whom, of how many tasks.")
@click.option("--decision", "number", type=click.IntRange(min=1), metavar="N", help="One decision, as it was made.")
@watch_option
@output_option
def explain(name: str, every: bool, history: bool, number: int | None, watch: bool, output: str) -> None:
    """Explain where tasks of a service are and why, and host by host why no more fit; or why one task is where it is.

    Without options it is about now. With --decision or --history, and for a task, about what was decided then.
    """
    if history and number is not None:
        raise click.UsageError("give either --history or --decision: the one lists decisions, the other tells of one")
    if watch and (history or number is not None):
        raise click.UsageError("what was decided does not change: -w is for how things are now")
    with session() as sked:
        kind, found = explaining.told_apart(sked.store, name)
        if kind == "task" and (history or number is not None):
            raise click.UsageError("decisions are about services: name the service")
        if kind == "task":
            return present_lines(
                sked,
                "TaskExplanationList",
                lambda seen: _task(seen, found),
                lambda seen: _task_lines(seen, found, every=every),
                output,
                watch=watch,
            )
        if history:
            return _history(explaining.decisions_of(sked.store, found), output)
        if number is not None:
            decision = explaining.one_decision(explaining.decisions_of(sked.store, found), found, number)
            return _decision(sked, found, decision, every=every, output=output)

        def lines(seen: Session) -> Iterator[str]:
            live = explaining.live(seen, found)
            if not live and not watch:
                note(f"no cluster lists service {found}: it runs nowhere")
            return _service_lines(live, every=every)

        return present_lines(
            sked,
            "ExplanationList",
            lambda seen: [decided.explained_json(one) for one in explaining.live(seen, found)],
            lines,
            output,
            watch=watch,
        )


# --- a service, now ----------------------------------------------------------------------------------------------


def _service_lines(found: Sequence[Explained], *, every: bool) -> Iterator[str]:
    for number, one in enumerate(found):
        if number:
            yield ""
        yield from _lines(one, every=every)


def _lines(one: Explained, *, every: bool) -> Sequence[str]:
    service, demand = one.goal.service, one.demand
    what = f"{service.task_name}@{service.task_version}"
    asked = f": {verdicts.asks(asked_of(demand, 1))}" if demand else ""
    lines = [f"{service.name} wants {counted(service.desired, 'task')} of {what} in {one.cluster}{asked}"]
    apart = [f"{one.leaving} to be replaced"] if one.leaving else []
    apart += [f"{one.silent} on hosts without an agent"] if one.silent else []
    said = f" ({', '.join(apart)})" if apart else ""
    lines.append(f'  placed {one.placed}{said}, waiting {one.waiting} (scheduler "{service.scheduler}")')
    lines += [f"  blocked: {plain(line)}" for line in one.status.blocked.splitlines()]
    lines += [f"  {plain(one.note)}"] if one.note else []
    lines += [_failing(task) for task in one.tasks if task.failure is not None or task.task.rejected]
    if one.verdicts:
        lines += verdicts.lines(one.verdicts, every=every)
    fits = any(not verdict.reasons for verdict in one.verdicts)
    if one.verdicts and not fits:
        lines += [f"  nearest: {plain(one.nearest)}"] if one.nearest else ["  no small change of one host would help"]
        lines += [f"  or: {one.less}"] if one.less else []
    elif not one.verdicts and not one.note:
        lines.append("  there is no host: `sked run agent` on a machine makes it one")
    if any(task.decision for task in one.tasks):
        lines += ["", *_where(one.tasks)]
    return lines


def _where(tasks: Sequence[Found]) -> Sequence[str]:
    rows = [
        (one.task.id, one.task.host, one.decision.number, one.decision.at, verdicts.score(one.terms))
        for one in tasks
        if one.decision is not None
    ]
    return table(("task", "host", "decision", "at", "score of the host then"), rows).splitlines()


def _failing(one: Found) -> str:
    task = one.task
    if task.rejected:
        return f"  {task.host} rejected {task.id}: {plain(_first(task.reject_reason))}"
    assert one.failure is not None
    next_try = f", next try {one.failure.next_try}" if one.failure.next_try else ""
    said = f"{_first(one.failure.reason or one.failure.output)} ({counted(one.failure.attempts, 'attempt')}{next_try})"
    return f"  {task.id} fails on {task.host}: {plain(said)}; sked tasks --by-service {task.service} --why"


def _first(text: str) -> str:
    return text.splitlines()[0] if text else "no reason given"


# --- what was decided --------------------------------------------------------------------------------------------


def _history(kept: Sequence[Decision], output: str) -> None:
    if output == "json":
        return emit("DecisionList", kept)
    rows = [
        (
            one.number,
            one.at,
            one.by.removeprefix("scheduler "),
            one.scheduler,
            sum(len(batch.hosts) + batch.omitted for batch in one.batches),
            sum(batch.waiting for batch in one.batches),
            "; ".join(f"{batch.task_name}@{batch.task_version} in {batch.cluster}" for batch in one.batches),
            "; ".join(filter(None, (shadowed(batch) for batch in one.batches))),
        )
        for one in kept
    ]
    return out(table(("decision", "at", "by", "scheduler", "placed", "waiting", "of", "shadow"), rows))


def shadowed(batch: Batch) -> str:
    """What another scheduler made of the batch, in a few words; empty if none was asked."""
    shadow = batch.shadow
    if shadow is None:
        return ""
    if shadow.fault:
        return plain(f"{shadow.scheduler}: {shadow.fault}")
    if not shadow.differs:
        return f"{shadow.scheduler}: the same"
    return f"{shadow.scheduler}: {shadow.differs} elsewhere (gain {shadow.gain:.4g})"


def _decision(sked: Session, service: str, decision: Decision, *, every: bool, output: str) -> None:
    found = [decided.verdicts_then(sked, service, decision, batch, 0) for batch in decision.batches]
    if output == "json":
        return emit("DecisionList", [decided.decision_json(decision, found)])
    out(f"decision {decision.number} about {service}, {decision.at}, by {decision.by} ({decision.scheduler})")
    for batch, then in zip(decision.batches, found, strict=True):
        placed = len(batch.hosts) + batch.omitted
        out("")
        what = f"{counted(batch.asked.count, 'task')} of {batch.task_name}@{batch.task_version} in {batch.cluster}"
        out(f"{what}: {verdicts.asks(batch.asked)}")
        out(f"  placed {placed}, waiting {batch.waiting}")
        for number, (instance, host) in enumerate(zip(batch.instances, batch.hosts, strict=False)):
            terms = verdicts.score(batch.terms[number]) if number < len(batch.terms) else ""
            name = task_id(batch.cluster, service, batch.task_version, instance)
            out(f"  {name} to {plain(host)}{f': {terms}' if terms else ''}")
        if batch.omitted:
            out(f"  and {batch.omitted} more, of which no more is kept")
        if batch.shadow is not None:
            out(f"  shadow {shadowed(batch)}")
        if then:
            out("  as it was before the first of them:")
            print_lines(verdicts.lines(then, every=every, ways=False))
        else:
            _kept(batch)
    return None


def _kept(batch: Batch) -> None:
    if batch.left_out:
        out(f"  {plain(batch.left_out)}")
    for host, reasons in batch.refusals.items():
        out(f"  {plain(host)}: {plain('; '.join(reasons))}")
    if batch.silent:
        out(f"  and {counted(batch.silent, 'more host')}")


# --- one task ----------------------------------------------------------------------------------------------------


def _task(sked: Session, task_id: str) -> Sequence[Any]:
    found = decided.task_found(sked, task_id)
    return [decided.task_json(found, decided.verdicts_before(sked, found))]


def _task_lines(sked: Session, task_id: str, *, every: bool) -> Iterator[str]:
    found = decided.task_found(sked, task_id)
    task, then = found.task, decided.verdicts_before(sked, found)
    state = "rejected" if task.rejected else "being stopped" if not task.scheduled else None
    state = state or ("healthy" if found.healthy else "not healthy")
    yield f"{task.id} is on {task.host or 'no host'} ({state})"
    if found.failure is not None or task.rejected:
        yield _failing(found)
    decision, batch = found.decision, found.batch
    if decision is None or batch is None:
        yield "  the decision that put it there is not kept any more, or somebody else put it there:"
        yield f"  sked events --by-task {task.id}"
        return
    what = f"decision {decision.number} about {task.service}, by {decision.by} ({decision.scheduler})"
    yield f"  since {decision.at}: {what}"
    yield f"  asked for {verdicts.asks(batch.asked)}"
    if found.terms:
        yield f"  score of {task.host} then: {verdicts.score(found.terms)}"
    if then:
        yield "  as it was then:"
        yield from verdicts.lines(then, every=every, ways=False)
    elif batch.left_out:
        yield f"  {plain(batch.left_out)}"
