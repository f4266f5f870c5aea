"""What a create call is judged by, and how a denial is worded. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import Denial, Limits, Rejected
from sked_docker.paths import GUARDED, Resolved, as_written
from sked_docker.policy import ANY, DockerPolicy

MOST_DENIALS = 5
"""So many are told at once."""
_WORD = re.compile(r"-{0,2}[A-Za-z_/][A-Za-z0-9_./-]*")
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


@dataclass(frozen=True, slots=True)
class Case:
    """What a body is judged by. ``port``: the task's own (0: none). ``resolve``: where a path of the host leads."""

    policy: DockerPolicy
    limits: Limits
    port: int = 0
    resolve: Callable[[str], Resolved] = as_written
    guarded: tuple[str, ...] = GUARDED


Rule = Callable[[Case, Any], Iterable[Denial]]


def denied(policy: DockerPolicy, gate: str, what: str, value: object) -> Denial:
    """A denial by the field ``gate`` of the section, which ``value`` would open: of a list, beside what it has."""
    whole = [*getattr(policy, gate), *value] if isinstance(value, list) else value
    return Denial(f"docker.{gate}", _printable(what), f"docker: {{{gate}: {_yaml(whole)}}}")


def over(gate: str, what: str, value: int) -> Denial:
    """A denial by the ceiling ``gate``, which would have to be ``value``."""
    return Denial(f"limits.{gate}", _printable(what), f"limits: {{{gate}: {value}}}")


def unknown(what: str) -> Denial:
    """A denial of what no gate is for."""
    return Denial("docker", _printable(f"sked-docker does not know {what}"), "# nothing allows it")


def reject(found: Sequence[Denial]) -> None:
    """Raises Rejected with the denials, if there are any."""
    if found:
        more = [f"and {len(found) - MOST_DENIALS} more"] if len(found) > MOST_DENIALS else []
        raise Rejected("\n".join([*map(str, found[:MOST_DENIALS]), *more]))


def words(gate: str, what: str, *, free: Iterable[str] = ()) -> Rule:
    """Each word of a list (or one word, or the names of a mapping) has to stand in the policy's."""

    def rule(case: Case, value: Any) -> Iterable[Denial]:
        allowed = {*getattr(case.policy, gate), *free}
        for word in [value] if isinstance(value, str) else value or ():
            if word and ANY not in allowed and word not in allowed:
                yield denied(case.policy, gate, f"{what} {word}", [word])

    return rule


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:300]


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=not str(value).isprintable())
