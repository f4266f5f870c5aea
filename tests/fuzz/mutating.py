"""Changing an input by its structure: JSON stays JSON, so that what lies behind the parser is reached as well."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 0.5, 2.0, -0.0, 1e308,
    "", " ", "0", "-1", "1e9", "10s", "1h", "99999999h", "10x", "1ms", "..", "../x", "a/b", "/", "-rf", "--privileged",
    "a b", "a\nb", "a\r\nb", "\x1b[2J", "\u202e", "\0", "é", "e\u0301", "💣", "a" * 64, "a" * 5000, "$(touch canary)",
    "$PROVIDED_PORT", "${PROVIDED_PORT}", "{0}", "%s", "<script>", "host", "docker", "bash", "os", "__class__",
    [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, ["a"] * 100, ["a", "a"],
)  # fmt: skip
"""Values that have broken something somewhere."""


def mutated(data: bytes, seed: int) -> bytes:
    """``data``, which holds JSON, with one to four of its values or keys replaced, removed, doubled or swapped. What is
    no JSON becomes some."""
    rng = random.Random(seed)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = deepcopy(rng.choice(HOSTILE))
    for _ in range(rng.randint(1, 4)):
        value = _once(value, rng)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _once(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return deepcopy(rng.choice(HOSTILE))
    where, at = rng.choice(places)
    match rng.randrange(6):
        case 0 | 1:
            where[at] = deepcopy(rng.choice(HOSTILE))
        case 2:
            other, there = rng.choice(places)
            where[at] = deepcopy(other[there])
        case 3:
            del where[at]
        case 4 if isinstance(where, dict):
            where[str(rng.choice(HOSTILE))[:200]] = deepcopy(where[at])
        case 4:
            where.append(deepcopy(where[at]))
        case _:
            where[at] = _near(where[at], rng)
    return value


def _near(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + rng.choice((-1, 1, 0.5, 10**6, -(10**6)))
    if isinstance(value, str):
        at = rng.randint(0, len(value))
        return value[:at] + str(rng.choice(HOSTILE))[:60] + value[at:]
    return [value]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every item of every list and mapping, as where it stands and under what. Not deeper than Python takes."""
    open_ones, depth = [(value, 0)], 60
    while open_ones:
        one, level = open_ones.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for at, inner in items:
            yield one, at
            if level < depth:
                open_ones.append((inner, level + 1))
