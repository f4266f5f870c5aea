"""``${VARIABLES}`` in texts, and files of them, as compose has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sked_core.plugin import plain

MAX_TEXT = 4 * 1024 * 1024
"""Most that all texts of one file may come to, once their variables are filled in."""
_MAX_NESTED = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:([=:])\s*(.*))?\Z", re.DOTALL)
_BRACE = re.compile(r"\$\{|[{}]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}
Unset = Callable[[str], None]
"""Told the name of each variable that nobody has set and that has no default."""


class Filling:
    """Fills variables into texts; together they may not become larger than MAX_TEXT."""

    def __init__(self, variables: Mapping[str, str], unset: Unset) -> None:
        self._variables, self._unset = variables, unset
        self._left = MAX_TEXT

    def fill(self, text: str) -> str:
        """``text`` with its variables filled in. Raises ValueError."""
        found = self._fill(text, 0) if "$" in text else text
        self._left -= len(found)
        if self._left < 0:
            raise ValueError(f"with its variables filled in the file is larger than {MAX_TEXT} characters")
        return found

    def _fill(self, text: str, depth: int) -> str:
        if depth > _MAX_NESTED:
            raise ValueError(f"variables are nested deeper than {_MAX_NESTED} levels")
        parts: list[str] = []
        at = size = 0
        while (dollar := text.find("$", at)) >= 0:
            parts.append(text[at:dollar])
            value, at = self._one(text, dollar + 1, depth)
            parts.append(value)
            size += len(value)
            if size > self._left:
                raise ValueError(f"with its variables filled in the file is larger than {MAX_TEXT} characters")
        return "".join([*parts, text[at:]])

    def _one(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """The value of what stands behind the ``$`` before ``at``, and where the text goes on."""
        if text.startswith("$", at):
            return "$", at + 1
        if bare := _NAME.match(text, at):
            return self._value(bare[0]), bare.end()
        name = _NAME.match(text, at + 1) if text.startswith("{", at) else None
        end = _closing(text, at) if name else -1
        if name is None or end < 0:
            raise ValueError(f'"${plain(text[at : at + 20])}" is no variable; write $$ for a dollar sign')
        operator = _OPERATOR.match(text, name.end())
        if operator is None and name.end() != end:
            raise ValueError(f'"${{{plain(text[at + 1 : end][:40])}}}" is no variable')
        word = text[operator.end() : end] if operator else ""
        return self._by(name[0], operator[0] if operator else "", word, depth), end + 1

    def _by(self, name: str, operator: str, word: str, depth: int) -> str:
        value = self._variables.get(name)
        there = value is not None and (value != "" or not operator.startswith(":"))
        match operator[-1:]:
            case "-":
                return value or "" if there else self._fill(word, depth + 1)
            case "+":
                return self._fill(word, depth + 1) if there else ""
            case "?" if not there:
                raise ValueError(f"the variable {name} has to be set: {plain(self._fill(word, depth + 1))[:200]}")
        return self._value(name)

    def _value(self, name: str) -> str:
        if name not in self._variables:
            self._unset(name)
        return self._variables.get(name, "")


def _closing(text: str, at: int) -> int:
    """Where the brace at ``at`` is closed; -1 if it is not."""
    depth = 0
    for mark in _BRACE.finditer(text, at):
        if mark[0] == "}":
            depth -= 1
            if depth == 0:
                return mark.start()
        elif mark[0] == "${" or mark.start() == at:
            depth += 1
    return -1


def fill_all(value: Any, path: str, fill: Callable[[str, str], object]) -> Any:
    """Plain data with ``fill(path, text)`` in the place of every text; keys stay as they are."""
    match value:
        case str():
            return fill(path, value)
        case list():
            return [fill_all(item, f"{path}[{index}]", fill) for index, item in enumerate(value)]
        case dict():
            return {
                name: fill_all(item, f"{path}.{plain(name[:80])}" if path else plain(name[:80]), fill)
                for name, item in value.items()
            }
    return value


def read_env_file(text: str, variables: Mapping[str, str], unset: Unset) -> dict[str, str]:
    """The variables of a file with lines of ``NAME=value``. A name alone is taken from ``variables``, if it is there.

    Raises ValueError with the number of the line.
    """
    found: dict[str, str] = {}
    filling = Filling(_Both(found, variables), unset)
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number}: expected NAME=value")
        name, mark, value = match[1], match[2], match[3] or ""
        if mark is None:
            if name in variables:
                found[name] = variables[name]
            continue
        quote = value[:1]
        while quote in ('"', "'") and quote and _end_of(value, quote) < 0:
            more = next(lines, None)
            if more is None:
                raise ValueError(f"line {number}: the quote is not closed")
            value += "\n" + more[1]
        try:
            found[name] = _unquoted(value, filling)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def _end_of(value: str, quote: str) -> int:
    """Where the quote that ``value`` begins with is closed; -1 if it is not."""
    match = re.compile(r"'[^']*'" if quote == "'" else r'"(?:[^"\\]|\\.)*"', re.DOTALL).match(value)
    return match.end() - 1 if match else -1


def _unquoted(value: str, filling: Filling) -> str:
    quote = value[:1]
    if quote == "'":
        return value[1 : _end_of(value, quote)]
    if quote == '"':
        inner = value[1 : _end_of(value, quote)]
        # An escaped dollar is kept from being filled in, as two are.
        inner = re.sub(r"\\(.)", lambda m: "$$" if m[1] == "$" else _ESCAPES.get(m[1], m[0]), inner, flags=re.DOTALL)
        return filling.fill(inner)
    return filling.fill(re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip())


class _Both(Mapping[str, str]):
    """``later`` by what the file has said so far, else by what was set before."""

    def __init__(self, first: Mapping[str, str], second: Mapping[str, str]) -> None:
        self._first, self._second = first, second

    def __getitem__(self, name: str) -> str:
        return self._second[name] if name in self._second else self._first[name]

    def __iter__(self) -> Any:
        return iter({**self._first, **self._second})

    def __len__(self) -> int:
        return len({**self._first, **self._second})
