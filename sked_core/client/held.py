"""Entries that were decoded before: whoever reads them again need not decode them, nor put their keys in order."""

from __future__ import annotations

import functools
from typing import Any

from sked_core.interfaces.store import Entry
from sked_core.model.wording import natural


class Held(Entry):
    """An entry that was decoded once; ``made`` is None where it can't be."""

    __slots__ = ("made",)
    made: Any

    def __init__(self, entry: Entry, made: object) -> None:
        super().__init__(entry.value, entry.revision, entry.lease)
        object.__setattr__(self, "made", made)


def made_of(entry: Entry, kind: type) -> Any:
    """The object of exactly ``kind`` that ``entry`` was decoded to before; None: it has to be decoded."""
    made = entry.made if isinstance(entry, Held) else None
    return made if type(made) is kind else None


@functools.lru_cache(maxsize=65_536)
def order(key: str) -> tuple[str | int, ...]:
    """``natural``, remembered, since thousands of keys are put in order time and again; no two keys are alike."""
    return (*natural(key), -1, key)
