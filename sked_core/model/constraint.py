"""What a manifest asks of a host, as text: ``zone in a, b``, ``host.kernel version >= 5.10``, ``gpu exists``.

A name stands for a tag that the host's operator gave it; ``host.NAME`` for what its agent says: its name, memory,
cpu_units or disk, or one of its attributes.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sked_core.errors import InvalidValue
from sked_core.model.pattern import Pattern
from sked_core.model.spec import did_you_mean, plain, show
from sked_core.model.types import Host

ATTRIBUTES = ("arch", "os", "kernel", "cores", "cgroups")
"""What agents report under ``host.``, beside the fields of the host."""
HOST_FIELDS = ("name", "memory", "cpu_units", "disk")
HOST = "host"
"""What ``per`` says where each host is meant by itself."""
MAX_CONSTRAINT = 1000
"""Characters of one constraint."""
MAX_VALUES = 100

ORDER = {">=": (0, 1), ">": (1,), "<=": (0, -1), "<": (-1,)}
"""For operators that compare: which outcomes of the comparison hold."""
OPERATORS = ("=", "!=", "in", "not in", "matches", "exists", "not exists", "version =", ">=", ">", "<=", "<")
_HABITS = {"==": "=", "is": "=", "eq": "=", "~": "matches", "=~": "matches", "like": "matches", "regexp": "matches"}
_HABITS |= {"<>": "!=", "isnt": "!=", "ne": "!=", "notin": "not in", "is_set": "exists", "=>": ">=", "=<": "<="}
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]*[A-Za-z0-9_])?"
_TAG = re.compile(rf"{_NAME}\Z")
_READ = re.compile(
    rf"\s*({_NAME})\s*(?:(?<=\s)(not\s+[a-z]+|version\b\s*[=<>!~]*|[A-Za-z_]+\b)|([=<>!~]+))\s*(.*)\Z", re.S
)
_VALUE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,"']*[^,"'\s]))\s*(?:,|\Z)""")
_VERSION = re.compile(r"v?(\d{1,18}(?:\.\d{1,18})*)")


@dataclass(frozen=True, slots=True)
class Constraint:
    """One of them, understood. ``text`` is what was written; ``values`` what stands behind the operator."""

    text: str
    name: str
    operator: str
    values: tuple[str, ...]

    def holds(self, host: Host) -> bool:
        """Whether the host is as it asks. What a host does not have is not equal to anything."""
        return self.admits(value_of(host, self.name))

    def admits(self, value: str | None) -> bool:
        """As ``holds``, of the value that a host has under the name; None: it has none."""
        if self.operator == "=" or self.operator == "in":
            return value in self.values
        if self.operator == "!=" or self.operator == "not in":
            return value not in self.values
        if self.operator == "exists" or self.operator == "not exists":
            return (value is not None) == (self.operator == "exists")
        return value is not None and _compared(self.operator, self.values[0], value)

    def refusal(self, host: Host) -> str:
        """Why the host is not as it asks; empty if it is."""
        value = value_of(host, self.name)
        if self.admits(value):
            return ""
        has = f"has no {self.name}" if value is None else f"has {self.name} {plain(value[:80])}"
        return f"needs {self.text}; {has}"


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Constraint:
    """The constraint that ``text`` says. Raises InvalidValue, with what would be right."""
    if len(text) > MAX_CONSTRAINT:
        raise InvalidValue(f"expected a constraint of at most {MAX_CONSTRAINT} characters, got {len(text)}")
    found = _READ.match(text)
    if found is None:
        advice = "expected a name, an operator and what it is compared with, such as zone = a"
        listed = "; in a [list] a constraint with a comma stands in quotes" if _TAG.match(text.strip()) else ""
        raise InvalidValue(f"{advice}, got {show(text)}{listed}")
    name, said, rest = found[1], " ".join((found[2] or found[3]).split()), found[4]
    operator = re.sub(r"^version ?", "version ", said).strip()
    if operator.removeprefix("version ") in ORDER:
        operator = operator.removeprefix("version ")  # what is greater is so as a version, or number, in any case
    if operator not in OPERATORS:
        lower = operator.lower()
        habit = lower if lower in OPERATORS else _HABITS.get(lower)
        near = f', did you mean "{habit}"?' if habit else did_you_mean(operator, OPERATORS)
        raise InvalidValue(f"unknown operator {show(operator)}{near or '; known are ' + ', '.join(OPERATORS)}")
    values = (rest.strip(),) if operator == "matches" else tuple(_values(rest, text))
    _check_values(text, name, operator, values)
    return Constraint(" ".join(text.split()), name, operator, values)


def value_of(host: Host, name: str) -> str | None:
    """What the host has under ``name`` (a tag, ``host.NAME``, or ``host`` for its name); None for nothing."""
    if name == HOST:
        return host.name
    if not name.startswith("host."):
        return host.tags.get(name)
    name = name.removeprefix("host.")
    return str(getattr(host, name)) if name in HOST_FIELDS else host.attributes.get(name)


def understood(text: str) -> Constraint | None:
    """As ``parse``; None for a text that is no constraint: programs that write the store could leave one there."""
    with contextlib.suppress(InvalidValue):
        return parse(text)
    return None


def refusals(constraints: Sequence[str], host: Host) -> list[str]:
    """Why the host is not as ``constraints`` ask, one line for each that does not hold. None holds that can't be
    understood."""
    parsed = ((text, understood(text)) for text in constraints)
    said = (one.refusal(host) if one else f"needs what can't be understood: {show(text)}" for text, one in parsed)
    return [why for why in said if why]


def satisfied(constraints: Sequence[str], host: Host) -> bool:
    """Whether the host is as ``constraints`` ask, as far as they can be understood: enough for a task to stay."""
    return all(one is None or one.holds(host) for one in map(understood, constraints))


def contradiction(constraints: Sequence[Constraint]) -> tuple[int, str] | None:
    """The first constraint that no host can satisfy together with the ones before it, and why; None if there is
    none, as far as can be told without knowing any host."""
    for index, one in enumerate(constraints):
        before = [other for other in constraints[:index] if other.name == one.name]
        for other in before:
            if _exclude(one, other):
                return index, f"can't hold together with {show(other.text)}"
        listed = [set(other.values) for other in (*before, one) if other.operator in ("=", "in")]
        if listed and not any(
            all(other.admits(value) for other in (*before, one)) for value in set.intersection(*listed)
        ):
            return index, f"can't hold together with {' and '.join(show(other.text) for other in before)}"
    return None


def possible_values(constraints: Sequence[Constraint], name: str) -> frozenset[str] | None:
    """The only values that a host may have under ``name``; None where they are not listed."""
    of_name = [one for one in constraints if one.name == name]
    listed = [set(one.values) for one in of_name if one.operator in ("=", "in")]
    if not listed:
        return None
    return frozenset(value for value in set.intersection(*listed) if all(one.admits(value) for one in of_name))


def tag_problem(name: str) -> str:
    """What is wrong with a name that ``per`` or ``over`` gives; empty if nothing is."""
    if not _TAG.match(name):
        return f"expected the name of a tag, such as zone, or host.NAME, got {show(name)}"
    return attribute_problem(name)


def attribute_problem(name: str) -> str:
    """That no agent reports ``name``, if it is none that agents report."""
    known = [f"host.{one}" for one in (*HOST_FIELDS, *ATTRIBUTES)]
    if not name.startswith("host.") or name in known:
        return ""
    return f"no agent says {name}{did_you_mean(name, known) or '; known are ' + ', '.join(known)}"


def _values(rest: str, text: str) -> Iterator[str]:
    at = 0
    while at < len(rest):
        found = _VALUE.match(rest, at)
        if found is None:
            raise InvalidValue(f"expected values with commas between them, got {show(rest[at:])} in {show(text)}")
        yield found[3] if found[3] is not None else found[1] if found[1] is not None else found[2]
        at = found.end()
    if rest.rstrip().endswith(","):
        raise InvalidValue(f"a value is missing behind the last comma of {show(text)}")


def _check_values(text: str, name: str, operator: str, values: tuple[str, ...]) -> None:
    many = operator in ("in", "not in")
    if operator.endswith("exists"):
        if values:
            raise InvalidValue(f"nothing may stand behind {operator}, got {show(text)}")
    elif not values or values == ("",):
        raise InvalidValue(f"nothing stands behind {show(operator)} in {show(text)}")
    elif len(values) > 1 and not many:
        one = "in" if operator == "=" else "not in"
        advice = f'; write "{name} {one} {", ".join(values)}"' if operator in ("=", "!=") else ""
        raise InvalidValue(f"{show(operator)} takes one value, got {len(values)}{advice}"[:300])
    elif len(values) > MAX_VALUES:
        raise InvalidValue(f"expected at most {MAX_VALUES} values, got {len(values)}")
    elif many and values[0][:1] in "[(" and values[-1][-1:] in "])":
        raise InvalidValue(f"write the values without brackets: {name} {operator} {', '.join(values)[1:-1]}"[:300])
    elif operator == "matches":
        _pattern(values[0])
    elif (operator in ORDER or operator == "version =") and not _VERSION.match(values[0]):
        raise InvalidValue(f"expected a version or a number, such as 5.10, got {show(values[0])}")


_pattern = functools.lru_cache(maxsize=256)(Pattern)


@functools.lru_cache(maxsize=16384)
def _compared(operator: str, wanted: str, value: str) -> bool:
    """What is not cheap to find out: hosts have few different values."""
    if operator == "matches":
        return _pattern(wanted).matches(value)
    outcome = compare(value, wanted)
    return outcome is not None and (outcome == 0 if operator == "version =" else outcome in ORDER[operator])


def compare(one: str, other: str) -> int | None:
    """-1, 0 or 1: how two versions compare, number by number (``5.9`` is before ``5.10``, and ``5`` is ``5.0``). What
    follows the numbers at their beginning counts for nothing; None if either has none."""
    pair = [_VERSION.match(text.strip()) for text in (one, other)]
    if pair[0] is None or pair[1] is None:
        return None
    numbers = [[int(part) for part in found[1].split(".")] for found in pair if found]
    longest = max(map(len, numbers))
    left, right = ([*parts, *[0] * (longest - len(parts))] for parts in numbers)
    return (left > right) - (left < right)


def _exclude(one: Constraint, other: Constraint) -> bool:
    """Whether two constraints on one name exclude each other in an obvious way."""
    kinds = {one.operator, other.operator}
    if "not exists" in kinds and kinds - {"not exists", "!=", "not in"}:
        return True
    low, high = (one, other) if one.operator in (">", ">=") else (other, one)
    if low.operator in (">", ">=") and high.operator in ("<", "<="):
        outcome = compare(low.values[0], high.values[0])
        return outcome == 1 or (outcome == 0 and (low.operator, high.operator) != (">=", "<="))
    return False
