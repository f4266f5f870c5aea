"""A part of a store that others use, for samples."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from sked_core.errors import SkedError
from sked_core.interfaces.store import Delete, Store
from sked_core.runtime.stores.prefixed import Prefixed


class Scratch:
    """A part of a store that others use as well, for samples: ``fresh=scratch.fresh, clear=scratch.clear``.

    Each test has a prefix of its own, which nobody else has, below ``sked-check/``: all that it reads and writes is
    below that. Leases have no keys; they end by themselves."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """``open_store``: opens clients of the whole store."""
        self._open = open_store
        self._prefixes: dict[Path, str] = {}

    def fresh(self, folder: Path) -> Callable[[], Store]:
        """Opens clients of a part that is empty."""
        prefix = self._prefixes[folder] = f"sked-check/{secrets.token_hex(8)}/"
        return lambda: Prefixed(self._open(), prefix)

    def clear(self, folder: Path) -> None:
        """Delete all keys of the part that ``fresh`` made for this folder, and nothing else. Idempotent."""
        prefix = self._prefixes.pop(folder, "")
        if not prefix:
            return
        store = self._open()
        try:
            while keys := list(store.read(prefix).entries):
                store.commit([Delete(key) for key in keys[: store.max_ops]])
        finally:
            store.close()

    def refused(self) -> str:
        """Why the store can't be used now, in the words of what it raised; empty where it answers."""
        try:
            store = self._open()
            try:
                store.read(f"sked-check/{secrets.token_hex(8)}/")
            finally:
                store.close()
        except SkedError as error:
            return str(error)
        return ""
