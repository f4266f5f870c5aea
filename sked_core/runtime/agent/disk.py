"""What an agent keeps in its state folder: who it is, which store it belongs to, and notes on its tasks.

Losing the folder loses no task: executors find theirs by label. A file that is empty, torn or corrupt is reported
and treated as absent.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from sked_core.errors import InvalidValue, SkedError
from sked_core.model import codec, keys
from sked_core.model.endings import Ending
from sked_core.model.types import Task, TaskId
from sked_core.runtime.agent import folders

T = TypeVar("T")
log = logging.getLogger("sked.agent")
MAX_ENDINGS = 16
"""How many endings the disk holds while the store does not take them."""


class Identity(Struct, frozen=True, kw_only=True):
    """Who this agent is, and the store that its tasks came from (``""``: none yet).

    ``mark`` scopes what executors call their own: the id of the first store, kept when another one is accepted, so
    that the containers which run are still found; without this file it would be found again in the store.
    """

    agent: str
    store_uid: str = ""
    mark: str = ""


class Note(Struct, frozen=True, kw_only=True):
    """One task as last started here: what a wiped store is refilled from, and the counts that survive a restart."""

    task: Task
    attempts: int = 0
    unhealthy_restarts: int = 0
    gone: bool = False
    """It was stopped for good: nothing is written back of it, but keys may be left to remove."""
    began: float = 0.0
    """When it was started last, as people tell the time (seconds since the epoch); 0: not known."""
    told: bool = False
    """How it ended was told: the next agent, which finds what is left of it, need not tell it again."""


class Seen(Struct, frozen=True, kw_only=True):
    """How many changes of what is issued here were taken in, and a digest of it as it was after the last."""

    count: int = 0
    digest: str = ""


class AgentDisk:
    """The state folder of one agent. ``lock`` it before use; not shared between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._notes = folder / "notes"
        self._identity: Identity | None = None
        self._seen: Seen | None = None
        self._lock_fd = -1

    def lock(self) -> None:
        """Create the folder and hold it for this process. Raises SkedError where another agent holds it, or where
        others could put another one in its place and this process is root."""
        try:
            self.folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            # Users of tasks pass through on the way to their own folders; nobody lists them.
            for folder, mode in ((self.folder, 0o711), (self.folder / "executors", 0o711), (self._notes, 0o700)):
                if not folder.is_dir():
                    folder.mkdir(mode=mode)
                    folder.chmod(mode)
            if replaceable := folders.replaceable(self.folder):
                if os.geteuid() == 0:
                    raise SkedError(f"state folder {self.folder}: {replaceable}", hint="choose one with --state-dir")
                log.warning("state folder %s: %s", self.folder, replaceable)
            self._lock_fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SkedError(
                f"state folder {self.folder}: {error.strerror}", hint="choose one with --state-dir"
            ) from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SkedError(
                f"another agent of this host is running (it holds {self.folder / 'lock'})",
                hint="give a second agent on this machine a name of its own: --host NAME",
            ) from None

    def unlock(self) -> None:
        """Let the next agent have the folder. Idempotent."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def identity(self) -> Identity:
        """Who this agent is: read once, decided and written where the folder holds no (valid) identity yet.

        Raises SkedError where the file can't be read: an agent that does not know which store it belongs to would
        take the word of any.
        """
        if self._identity is None:
            self._identity = self._read_identity()
        return self._identity

    def _read_identity(self) -> Identity:
        path = self.folder / "identity.json"
        try:
            return codec.decode(path.read_bytes(), Identity)
        except FileNotFoundError:
            log.debug("no identity yet in %s", self.folder)
        except InvalidValue as error:
            log.error("%s is treated as absent: %s", path, error)
        except OSError as error:
            raise SkedError(
                f"{path} can't be read: {error.strerror}", hint="choose another folder with --state-dir"
            ) from None
        identity = Identity(agent=secrets.token_hex(8))
        self._save(path, identity, durable=True)
        return identity

    def pin(self, store_uid: str) -> Identity:
        """Remember the store that this agent belongs to."""
        before = self.identity()
        identity = Identity(agent=before.agent, store_uid=store_uid, mark=before.mark or store_uid)
        self._save(self.folder / "identity.json", identity, durable=True)
        self._identity = identity
        return identity

    def seen(self) -> Seen:
        """What was noted last; nothing where the file is lost."""
        if self._seen is None:
            self._seen = self._load(self.folder / "seen.json", Seen) or Seen()
        return self._seen

    def note_seen(self, seen: Seen) -> None:
        """Remember it, on a full disk only for as long as this process lives."""
        self._seen = seen
        self._keep(self.folder / "seen.json", seen, "what was seen of the store")

    def endings(self) -> list[Ending]:
        """Those that the store had not taken when they were kept last."""
        return self._load(self.folder / "endings.json", list[Ending]) or []

    def keep_endings(self, endings: Sequence[Ending]) -> None:
        """Remember these, the newest MAX_ENDINGS of them, in place of those before; on a full disk they are lost with
        this process."""
        self._keep(self.folder / "endings.json", endings[-MAX_ENDINGS:], "how tasks ended")

    def write_note(self, note: Note) -> None:
        """Remember a task before it is started. A full disk is reported, and does not keep the task from starting."""
        self._keep(self._note(note.task.id), note, note.task.id, task=note.task.id)

    def note_versions(self, task_id: TaskId, versions: Mapping[str, str]) -> None:
        """Remember which versions of its secrets a task is given; on a full disk nobody knows later."""
        self._keep(self._versions(task_id), versions, f"the secrets of {task_id}", task=task_id)

    def versions(self, task_id: TaskId) -> dict[str, str]:
        """What was noted so; nothing where that is lost."""
        return self._load(self._versions(task_id), dict[str, str]) or {}

    def drop_note(self, task_id: TaskId) -> None:
        try:
            self._note(task_id).unlink(missing_ok=True)
            self._versions(task_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("the note of %s stays: %s", task_id, error, extra={"task": task_id})

    def notes(self) -> dict[TaskId, Note]:
        """All notes by task id."""
        found = (self._load(path, Note) for path in sorted(self._notes.glob("*.json")))
        return {note.task.id: note for note in found if note is not None}

    def _note(self, task_id: TaskId) -> Path:
        return self._notes / f"{keys.check_task_id(task_id)}.json"

    def _versions(self, task_id: TaskId) -> Path:
        return self.folder / "secrets" / f"{keys.check_task_id(task_id)}.json"

    def _load(self, path: Path, kind: type[T]) -> T | None:
        try:
            return codec.decode(path.read_bytes(), kind)
        except FileNotFoundError:
            return None
        except (OSError, InvalidValue) as error:
            log.warning("%s is treated as absent: %s", path, error)
            return None

    def _keep(self, path: Path, value: object, what: str, **about: str) -> None:
        """``_save``, where a full disk is told and keeps nothing from going on. ``about``: as logs have it."""
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._save(path, value)
        except OSError as error:
            log.warning("no note of %s: %s", what, error, extra=about)

    def _save(self, path: Path, value: object, *, durable: bool = False) -> None:
        """Replace the file in one step, by one that only this user reads. ``durable``: also against power loss (notes
        may be lost, never torn)."""
        temporary = path.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(codec.encode(value))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
