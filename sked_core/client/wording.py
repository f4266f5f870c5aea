"""Small pieces of text that people read everywhere."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(\d+)")


def counted(number: int, noun: str) -> str:
    """``1 error``, ``3 errors``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which 2 stands before 10."""
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _NUMBER.split(text) if part)


def first_line(text: str) -> str:
    """What tables and headlines show of a reason; the rest are check output and log lines."""
    return text.partition("\n")[0]
