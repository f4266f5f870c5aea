"""Regular expressions that can't hang: those of manifests are matched in time that grows with pattern × text, whatever
they say, by following all ways through the pattern at once (K. Thompson, "Regular Expression Search Algorithm",
Communications of the ACM 11(6), 1968).

Known are characters, ``.``, classes (``[a-z0-9_]``, ``[^a]``, ``\\d``, ``\\w``, ``\\s``), groups, ``|``, ``*``, ``+``,
``?`` and ``{m,n}``. They mean what Python's ``re`` means by them, over ASCII, with the whole text to be matched.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sked_core.errors import InvalidValue
from sked_core.model.spec import show

MAX_PATTERN = 200
"""Characters of a pattern."""
MAX_TEXT = 256
"""Characters of a text; a longer one does not match."""
MAX_STEPS = 1000
"""Steps that a pattern becomes: ``{m,n}`` copies what it repeats."""

_Test = Callable[[str], object]
_COUNT = re.compile(r"\{([0-9]{1,4})(?:(,)([0-9]{0,4}))?\}")
_CLASS = re.compile(r"\[\^?(?:\\.|[^\]\\\[])+\]")
_CLASS_PART = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?")
_KINDS = frozenset("dDwWsS")


@dataclass(frozen=True, slots=True)
class _Repeated:
    """``part`` from ``least`` to ``most`` times (None: any number)."""

    part: _Part
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class _Either:
    ways: Sequence[Sequence[_Part]]


_Part = _Test | _Repeated | _Either


class Pattern:
    """A compiled pattern. Raises InvalidValue for one that is wrong or asks for more than is known here."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN:
            raise InvalidValue(f"expected a pattern of at most {MAX_PATTERN} characters, got {len(text)}")
        body = text.removeprefix("^")
        if body.endswith("$") and not re.search(r"(?<!\\)(\\\\)*\\\$\Z", body):
            body = body[:-1]
        self._text, self._body, self._at = text, body, 0
        whole = self._either()
        if self._at < len(body):
            raise self._wrong(f"{show(body[self._at])} without its beginning")
        self._steps: list[tuple[_Test | None, tuple[int, ...]]] = []
        """What the next character has to pass (None: none is taken), and the steps that may follow."""
        self._end = self._step(None, ())
        self._start = self._built(whole, self._end)

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        if len(text) > MAX_TEXT:
            return False
        here = self._closed({self._start})
        for character in text:
            ahead: set[int] = set()
            for number in here:
                test, following = self._steps[number]
                if test is not None and test(character):
                    ahead.update(following)
            here = self._closed(ahead)
            if not here:
                return False
        return self._end in here

    def _closed(self, numbers: set[int]) -> set[int]:
        """``numbers`` with every step that is reached from them without taking a character."""
        todo = list(numbers)
        while todo:
            test, following = self._steps[todo.pop()]
            if test is None:
                fresh = [number for number in following if number not in numbers]
                numbers.update(fresh)
                todo += fresh
        return numbers

    def _wrong(self, why: str) -> InvalidValue:
        return InvalidValue(f"pattern {show(self._text)}: {why}")

    # --- reading -------------------------------------------------------------------------------------------------

    def _next(self) -> str:
        return self._body[self._at : self._at + 1]

    def _either(self) -> _Either:
        ways: list[list[_Part]] = [[]]
        while (character := self._next()) not in ("", ")"):
            if character == "|":
                self._at += 1
                ways.append([])
            else:
                ways[-1].append(self._often(self._one(character)))
        return _Either(ways)

    def _one(self, character: str) -> _Part:
        if character in "*+?{":
            raise self._wrong(f"nothing that {show(character)} could repeat")
        if character in "^$]}":
            raise self._wrong(f"{show(character)} is not known here: for the character itself write \\{character}")
        if character == "(":
            return self._group()
        if character == "[":
            found = _CLASS.match(self._body, self._at)
            if found is None:
                raise self._wrong(f"{show(self._body[self._at :])} is no class of characters such as [a-z0-9]")
            self._at = found.end()
            return self._class(found[0][1:-1])
        length = 2 if character == "\\" else 1
        self._at += length
        return self._test(self._body[self._at - length : self._at])

    def _group(self) -> _Either:
        self._at += 3 if self._body.startswith("(?:", self._at) else 1
        if self._next() == "?":
            raise self._wrong("(? is not known here, but for (?:")
        inside = self._either()
        if self._next() != ")":
            raise self._wrong('"(" without its end')
        self._at += 1
        return inside

    def _often(self, part: _Part) -> _Part:
        character = self._next()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(character, (1, 1))
        if character in ("*", "+", "?"):
            self._at += 1
        elif character == "{":
            found = _COUNT.match(self._body, self._at)
            if found is None or (found[3] and int(found[3]) < int(found[1])):
                raise self._wrong(f"{show(self._body[self._at :])}: expected a count such as {{2}} or {{1,3}}")
            least, most = int(found[1]), int(found[3]) if found[3] else None if found[2] else int(found[1])
            self._at = found.end()
        else:
            return part
        if self._next() in ("*", "+", "?", "{"):
            raise self._wrong(f"two repetitions in a row: {show(self._body[self._at - 1 : self._at + 1])}")
        return _Repeated(part, least, most)

    def _test(self, text: str) -> _Test:
        """For one character: itself, ``.``, or what a backslash makes of the next."""
        if text == ".":
            return lambda character: character != "\n"
        if text[0] != "\\":
            return text.__eq__
        if text[1:] in _KINDS:
            return re.compile(text, re.ASCII).match
        if not text[1:] or (text[1].isalnum() and text[1].isascii()):
            raise self._wrong(f"{show(text)} is not known here")
        return text[1].__eq__

    def _class(self, inside: str) -> _Test:
        tests: list[_Test] = []
        for first, last in _CLASS_PART.findall(inside.removeprefix("^")):
            if not last:
                tests.append(first.__eq__ if first == "." else self._test(first))
                continue
            low, high = (end[1] if end[0] == "\\" else end for end in (first, last))
            if {first[1:], last[1:]} & _KINDS or low > high:
                raise self._wrong(f"{show(f'{first}-{last}')} is no range of characters")
            tests.append(functools.partial(_between, low, high))
        outside = inside.startswith("^")
        return lambda character: any(test(character) for test in tests) != outside

    # --- building: from the end to the beginning, ``then`` is the step that follows ---------------------------------

    def _step(self, test: _Test | None, following: tuple[int, ...]) -> int:
        if len(self._steps) >= MAX_STEPS:
            raise self._wrong("too many repetitions")
        self._steps.append((test, following))
        return len(self._steps) - 1

    def _built(self, part: _Part, then: int) -> int:
        if isinstance(part, _Either):
            starts = []
            for way in part.ways:
                start = then
                for one in reversed(way):
                    start = self._built(one, start)
                starts.append(start)
            return self._step(None, tuple(starts))
        if not isinstance(part, _Repeated):
            return self._step(part, (then,))
        if part.most is None:
            loop = self._step(None, ())
            self._steps[loop] = (None, (self._built(part.part, loop), then))
            then = loop
        else:
            after = then
            for _ in range(part.most - part.least):
                then = self._step(None, (self._built(part.part, then), after))
        for _ in range(part.least):
            then = self._built(part.part, then)
        return then


def _between(low: str, high: str, character: str) -> bool:
    return low <= character <= high
