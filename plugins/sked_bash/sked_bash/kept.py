"""The logs of stopped containers: evidence of the last few, so that disks don't fill up."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from sked_bash import record as records

MAX_KEPT = 20


class KeptLogs:
    """The folders that hold nothing but logs, oldest first. At most MAX_KEPT of them; older ones are deleted."""

    def __init__(self) -> None:
        self._folders: dict[Path, None] = {}
        self._lock = threading.Lock()

    def load(self, root: Path) -> None:
        """Take over those below ``root`` that earlier agents kept."""
        folders = [folder for folder in root.glob("*/*") if folder.is_dir() and not (folder / records.RECORD).exists()]
        for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
            self.add(folder)

    def add(self, folder: Path) -> None:
        """``folder`` holds the logs of a container that was stopped just now."""
        with self._lock:
            if folder.exists():
                self._folders[folder] = None
            while len(self._folders) > MAX_KEPT:
                oldest = next(iter(self._folders))
                del self._folders[oldest]
                shutil.rmtree(oldest, ignore_errors=True)
                records.remove(oldest)

    def of(self, task_id: str) -> list[Path]:
        """Those of one task, by container."""
        with self._lock:
            return sorted(folder for folder in self._folders if folder.parent.name == task_id)

    def discard(self, folder: Path) -> None:
        """``folder`` is about to be used again."""
        with self._lock:
            self._folders.pop(folder, None)
