"""Lines out of what the engine sends as the output of a container."""

from __future__ import annotations

from collections.abc import Iterator

HEADER = 8
"""Bytes before each piece: the stream's number, three zeros, and the size, high byte first (Docker's API, attach)."""


def last_lines(raw: bytes, count: int) -> list[str]:
    """The last ``count`` lines, in the order in which they ended. The engine cuts long lines into pieces, and those of
    stdout and stderr may be mixed. (A terminal's output would come without headers, but no task has one.)"""
    open_lines: dict[int, bytes] = {}
    lines: list[bytes] = []
    for stream, piece in _pieces(raw):
        *whole, rest = (open_lines.get(stream, b"") + piece).split(b"\n")
        lines += whole
        open_lines[stream] = rest
    lines += [rest for rest in open_lines.values() if rest]
    return [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines[-count:]]


def _pieces(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Each piece with its stream; one that was cut short comes as far as it goes."""
    at = 0
    while at + HEADER <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + HEADER], "big")
        yield raw[at], raw[at + HEADER : at + HEADER + size]
        at += HEADER + size
