"""The embedded store passes the contract, as several clients of one file, and while the file is locked or away."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sked_core.runtime.stores import embedded, sqlite_file
from sked_core.runtime.stores.embedded import EmbeddedStore
from sked_core.testing.stores import Engine, OpenStore, StoreContract, StoreFaultContract

HOLD_THE_LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class TestEmbeddedStore(StoreContract):
    short_ttl = 2.0

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: EmbeddedStore(tmp_path / "state" / "sked.db")


def swap(one: Path, other: Path) -> None:
    """Each gets the other's name, at once: where for a moment there was nothing, clients would make a new store."""
    here, exchange, libc = -100, 2, ctypes.CDLL(None, use_errno=True)  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
        raise OSError(ctypes.get_errno(), f"{one} and {other} can't be swapped")


class FileOnADisk:
    """The engine of an embedded store is its file: another process can keep it locked, and its disk can be away."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sked.db"
        self._folder, self._away = folder, folder.with_name("away")
        self._holder: subprocess.Popen[str] | None = None
        self._folder.mkdir()

    def start(self) -> None:
        if self._away.is_dir():
            swap(self._folder, self._away)
            self._away.unlink()
        elif self._folder.is_file():
            self._folder.unlink()

    def kill(self) -> None:
        """Take the disk away, with all that is open on it."""
        if self._folder.is_dir():
            self._away.touch()
            swap(self._folder, self._away)

    def pause(self) -> None:
        """Have a process take the write lock and hang."""
        command = [sys.executable, "-c", HOLD_THE_LOCK, str(self.path)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "held\n"

    def resume(self) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    def wipe(self) -> None:
        self.kill()
        shutil.rmtree(self._away, ignore_errors=True)

    def compact(self) -> None:
        """Forget all changes but the last, as the store itself does with those that are old."""
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            database.execute("DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes)")


class TestEmbeddedFaults(StoreFaultContract):
    hanging = ("commit", "grant", "renew", "revoke")  # readers need no lock

    @pytest.fixture
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
        for module in (embedded, sqlite_file):
            monkeypatch.setattr(module, "DEADLINE_S", 2.0)
        file = FileOnADisk(tmp_path / "state")
        yield file
        file.resume()

    @pytest.fixture
    def open_store(self, engine: FileOnADisk) -> OpenStore:
        return lambda: EmbeddedStore(engine.path)
