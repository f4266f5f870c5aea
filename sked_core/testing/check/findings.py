"""What a check found, one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SHOWN = 5
"""Of faults of one kind."""


class Verdict(Enum):
    OK = "ok"
    WRONG = "wrong"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Finding:
    """``part``: what it is about, ``packaging`` or such as ``executor page``. ``what``: what was looked at, as a
    sentence that is true where the verdict is ok. ``why``: what was found instead, or why it was not tried."""

    part: str
    what: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All of one package, in the order in which it was found."""

    package: str
    version: str
    findings: tuple[Finding, ...]

    def of(self, *verdicts: Verdict) -> Sequence[Finding]:
        return [one for one in self.findings if one.verdict in verdicts]

    def parts(self) -> Sequence[str]:
        """What was looked at, each part once."""
        return list(dict.fromkeys(one.part for one in self.findings))


def judged(part: str, what: str, faults: Sequence[str]) -> Finding:
    """Ok where there are no ``faults``, else wrong for all of them."""
    first, rest = faults[:SHOWN], faults[SHOWN:]
    found = "; ".join(first) + (f"; and {len(rest)} more" if rest else "")
    return Finding(part, what, Verdict.WRONG if found else Verdict.OK, found)
