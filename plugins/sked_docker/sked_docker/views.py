"""The engine's own view of the host's files, where it is not the agent's.

Under systemd's protections, or in a container, an agent has mounts of its own, of which the engine sees nothing: a path
may lead elsewhere there, and what is mounted here is not there. So paths are walked and held by a thread that has
joined the engine's mount namespace. That takes root, and the two seeing each other's processes.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sked_docker.paths import Place, Run

# Of <sched.h>.
_FILE_SYSTEM, _MOUNTS = 0x200, 0x20000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """``namespace``: its number, 0 for one that is not known. ``place``: where in it something can be held."""

    namespace: int
    place: Place


class Views:
    """Gives the view of whoever is asked for; holds are at places below ``folder``. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self.own = View(_namespace(os.getpid()), Place(folder))
        self._last = self.own

    def of(self, pid: int) -> View:
        """That of process ``pid``; our own where it is the same one, or can't be joined or found out."""
        namespace = _namespace(pid)
        if namespace in (0, self.own.namespace):
            return self.own
        with self._lock:
            if self._last.namespace != namespace:
                try:
                    self._last = View(namespace, Place(self._folder, _joined(pid, namespace)))
                except OSError as error:
                    _log.warning("the Docker engine has mounts of its own, which can't be joined: %s", error)
                    return self.own
            return self._last


def _namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino if pid > 0 else 0
    except OSError:
        return 0


def _joined(pid: int, namespace: int) -> Run:
    """Runs functions in a thread with the mounts of process ``pid``. The thread ends when nobody has this any more."""
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    worker = ThreadPoolExecutor(1, "docker-mounts")
    try:
        if os.fstat(fd).st_ino != namespace:
            raise OSError("it is another process by now")
        worker.submit(_join, fd).result()
    finally:
        os.close(fd)
    return lambda function: worker.submit(function).result()


def _join(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # The root and the working folder are the whole process's, until a thread has them for itself.
    if libc.unshare(_FILE_SYSTEM) or libc.setns(fd, _MOUNTS):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
