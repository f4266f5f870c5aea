"""Small pieces of text that people read everywhere."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(\d+)")


def counted(number: int, noun: str) -> str:
    """``1 error``, ``3 errors``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def natural(text: str) -> tuple[str | int, ...]:
    """A sort key under which 2 stands before 10."""
    parts: list[str | int] = list(_NUMBER.split(text))
    parts[1::2] = map(int, parts[1::2])  # a text and a number take turns, so that like is compared with like
    return tuple(parts)


def first_line(text: str) -> str:
    """What tables and headlines show of a reason; the rest are check output and log lines."""
    return text.partition("\n")[0]
