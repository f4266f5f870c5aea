"""What is kept on disk of a started container, and the lock that lets only one of it run.

The kernel is the truth, the record only adds to it. It is written before the first process exists, already with the
mark that the process will bear, so an agent killed at any moment leaves nothing that can't be found again. A record
that is missing, torn or corrupt counts as absent: whatever it names is compared with the kernel (boot id, pid, start
time) before it is believed.

The lock is an flock on a file in the container's folder. Its descriptor is inherited by the task, and so the lock is
held as long as any process of the task lives that has not closed it: an agent can't start a second one, not even
while the first is between fork and exec, where it bears no mark yet.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from sked_bash.processes import Identity
from sked_core.plugin import ExecutorError, Handle, TaskId

RECORD = "record.json"
LOCK = "lock"
WORK = "work"
_LOCK_SECONDS = 2.0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One started instance of a container. ``pid`` 0: not known (yet); ``followers``: processes known to belong to
    it besides the main one, as (pid, start time).

    ``user`` and ``uid``: whom it runs as (``""``, -1: not on record, as of agents before there was a choice).
    ``groups``: the folders of its control groups. ``withheld``: names of variables that hold secrets, whose values are
    not written down."""

    scope: str
    task_id: str
    container: str
    digest: str
    nonce: str
    boot_id: str
    env: dict[str, str] = {}
    stop: str = ""
    pid: int = 0
    started: int = 0
    followers: list[tuple[int, int]] = []
    ended: bool = False
    exit_code: int | None = None
    user: str = ""
    uid: int = -1
    groups: list[str] = []
    withheld: list[str] = []
    out_of_memory: bool = False

    @property
    def mark(self) -> str:
        """What the processes of this instance bear in their environment."""
        return f"{self.owner}/{self.digest}/{self.nonce}"

    @property
    def owner(self) -> str:
        """The part of the mark that all instances of the container share."""
        return f"{self.scope}/{self.task_id}/{self.container}"

    @property
    def handle(self) -> Handle:
        return Handle(TaskId(self.task_id), self.container, self.nonce, self.digest)

    @property
    def main(self) -> Identity:
        return Identity(self.pid, self.started)

    @property
    def roots(self) -> list[Identity]:
        """All processes that are known to belong to the instance, dead or alive."""
        return [self.main, *(Identity(pid, started) for pid, started in self.followers)]


def of_mark(mark: str, boot_id: str, uid: int) -> Record | None:
    """The record that can be made from a mark alone, and whose process bears it, for an instance whose own record was
    lost."""
    parts = mark.split("/")
    if len(parts) != 5:
        return None
    scope, task_id, container, digest, nonce = parts
    return Record(
        scope=scope, task_id=task_id, container=container, digest=digest, nonce=nonce, boot_id=boot_id, uid=uid
    )


def new_nonce() -> str:
    """A name for one instance that no other one ever has."""
    return secrets.token_hex(8)


def load(folder: Path) -> Record | None:
    """The record in ``folder``; None if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def save(folder: Path, record: Record, *, again: bool = False) -> None:
    """Write the record so that a reader, also after a crash of the host, sees the old or the new one, whole. ``again``:
    what is known by now of a container that was recorded; nothing is written where a later one has taken its place, as
    by the agent after this one."""
    temporary = folder / f"{RECORD}.{new_nonce()}"  # two agents, one about to end, may write at once
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(fd)
        there = load(folder) if again else None
        if there is not None and there.nonce != record.nonce:
            return
        temporary.rename(folder / RECORD)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove(folder: Path) -> None:
    """Remove all of a container that ended but its logs; the folder too, if there are none. The lock goes last."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
    for path in (*folder.glob(f"{RECORD}*"), folder / LOCK):
        path.unlink(missing_ok=True)
    for path in (folder, folder.parent):
        with suppress(OSError):  # holds logs, or another container of the task
            path.rmdir()


class Held(ExecutorError):
    """A process of the container, or somebody who starts one, holds its lock."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock in ``folder``; the value is the descriptor for the task to inherit.

    Leaving only closes this process's copy of it: a task that inherited it goes on holding the lock. Raises Held if a
    process of an earlier instance still holds it.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        fd = _try_lock(folder / LOCK, fcntl.LOCK_EX)
        if fd is not None:
            break
        if time.monotonic() > deadline:
            raise Held(
                f"something of an earlier start of this container still runs (it holds {folder / LOCK})",
                hint=f"fuser {folder / LOCK} shows what it is",
            )
        time.sleep(0.01)
    try:
        yield fd
    finally:
        os.close(fd)


def is_held(folder: Path) -> bool:
    """Whether a process of the container still holds its lock.

    Asked twice, a moment apart: a process that the agent spawns for something else at this very moment has a copy of
    all descriptors until it executes.
    """
    for pause in (0.02, 0.0):
        if not (folder / LOCK).exists():
            return False
        fd = _try_lock(folder / LOCK, fcntl.LOCK_SH)
        if fd is not None:
            os.close(fd)
            return False
        time.sleep(pause)
    return True


def _try_lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds the lock, or None if somebody else does. A task inherits it, and can't write by it."""
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    os.close(fd)
    return None
