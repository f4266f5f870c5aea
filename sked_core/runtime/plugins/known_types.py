"""Has msgspec learn all types before two threads can need one that it does not know.

It learns a type the first time that something is decoded or converted to it. Two threads that are there at once end the
process by a segmentation fault, seen with msgspec 0.22.0 in one run of three of ``tests/runtime/test_known_types.py``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from weakref import WeakSet

from msgspec import Struct
from msgspec.json import Decoder

_known: WeakSet[type] = WeakSet()
_learning = threading.Lock()


def know_types() -> None:
    """Learn all structs there are by now, those of plugins too. To be called where modules have been imported, before
    threads use what is theirs; idempotent, and quick where nothing is new."""
    with _learning:
        for kind in list(_below(Struct)):
            if kind not in _known:
                _known.add(kind)
                with contextlib.suppress(Exception):  # nobody can decode to it, and whoever tries is told why
                    Decoder(kind)


def _below(kind: type) -> Iterator[type]:
    below: list[type] = kind.__subclasses__()
    for each in below:
        yield each
        yield from _below(each)
