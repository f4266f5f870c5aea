"""A run as Markdown, for docs/proof.md and for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from history.checker import RULES
from history.run import Run

SHOWN = 20
"""How many violations are printed."""


def as_markdown(run: Run) -> str:
    """One section: what was done to whom, what was seen, and what each rule has to say."""
    return "\n".join(_lines(run))


def put_into(page: str, section: str) -> str:
    """``page`` with ``section`` in the place of the one with the same backend, or at its end."""
    title = section.partition(":")[0] + ":"
    before, found, rest = page.partition(title)
    if not found:
        return f"{page.rstrip()}\n\n{section.rstrip()}\n"
    after = re.search(r"^#", rest, re.MULTILINE)
    return f"{before}{section.rstrip()}\n" + (f"\n{rest[after.start() :]}" if after else "")


def _lines(run: Run) -> Iterator[str]:
    commits = run.history.commits
    ends = Counter(one.end or "died before the answer" for one in commits)
    unknown = [one for one in commits if one.end in ("unknown", "")]
    stopped = [one for one in commits if one.stopped]
    pauses = run.paused_seconds
    yield f"### {run.backend}: {run.version}"
    yield ""
    yield f"`scripts/history --backend {run.backend} --minutes {run.seconds / 60:g} --seed {run.seed}`"
    yield ""
    yield f"- {run.schedulers} schedulers, {run.seconds / 60:g} minutes of faults: {_counts(run.faults)}."
    if pauses:
        yield f"- {len(pauses)} pauses of {min(pauses):.1f} to {max(pauses):.1f} s."
    yield f"- What users did meanwhile: {_counts(run.changes)}."
    yield (
        f"- {len(commits)} commits by {len({one.process for one in commits})} processes, "
        f"{sum(one.by_scheduler for one in commits)} of them by schedulers: {_counts(ends)}. "
        f"{sum(bool(one.revision) for one in unknown)} of the {len(unknown)} without an answer were carried out."
    )
    yield (
        f"- {len(stopped)} commits under a lease were held up by SIGSTOP after the lease had been proven: "
        f"{sum(one.end == 'ok' for one in stopped)} were still in time, "
        f"{sum(one.end in ('conflict', 'lease lost') for one in stopped)} were refused by the store, "
        f"{sum(one.end in ('unknown', '') for one in stopped)} were never answered. "
        f"{run.verdict.taken_over} locks were taken over from holders that had lost them."
    )
    events = "no history of its own" if run.history.events is None else f"{len(run.history.events)} of its own events"
    yield f"- The store's own account: {events}, {len(run.history.looks)} consistent reads."
    yield (
        f"- After the faults everything was as declared within {run.settled_after:.0f} s, no lock was held, and the "
        "leases were as many as the living processes."
        if not run.unsettled
        else f"- Not settled {run.settled_after:.0f} s after the faults:"
    )
    yield from (f"  - {complaint}" for complaint in run.unsettled[:SHOWN])
    yield from (f"- **The run is void**: {failure}" for failure in run.failures)
    yield ""
    yield "| rule | asked | violations |"
    yield "| --- | --- | --- |"
    broken = Counter(violation.rule for violation in run.verdict.violations)
    for rule, text in RULES.items():
        yield f"| {text} | {run.verdict.asked[rule]} | {broken[rule]} |"
    yield ""
    yield from (f"- {violation}" for violation in run.verdict.violations[:SHOWN])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counter.items())) or "nothing"
