"""An agent's state folder in memory: it survives the agent, as a disk does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sked_core.errors import InvalidValue, SkedError
from sked_core.model import codec
from sked_core.model.ports import Binding
from sked_core.model.types import TaskId
from sked_core.runtime.agent.disk import AgentDisk, Identity, Note

T = TypeVar("T")
FOLDER = "/simulated"
MEMORY_MB, CPU_UNITS, DISK_MB = 8192, 8192, 100_000


@dataclass(slots=True)
class Files:
    """What stands on the disk of one host. ``locked``: an agent holds the folder."""

    host: str
    by_name: dict[str, bytes] = field(default_factory=dict)
    locked: bool = False


class SimDisk(AgentDisk):
    """An AgentDisk on ``files``. Nothing of it is random: the agent's id follows from the host's name."""

    def __init__(self, files: Files) -> None:
        super().__init__(Path(FOLDER))
        self._files = files

    def lock(self) -> None:
        if self._files.locked:
            raise SkedError("another agent of this host is running")
        self._files.locked = True

    def unlock(self) -> None:
        self._files.locked = False

    def _read_identity(self) -> Identity:
        path = self.folder / "identity.json"
        identity = self._load(path, Identity) or Identity(agent=f"agent-of-{self._files.host}")
        self._save(path, identity)
        return identity

    def notes(self) -> dict[TaskId, Note]:
        names = [name for name in sorted(self._files.by_name) if name.startswith("notes/")]
        found = (self._load(self.folder / name, Note) for name in names)
        return {note.task.id: note for note in found if note is not None}

    def drop_note(self, task_id: TaskId) -> None:
        self._files.by_name.pop(self._name(self._note(task_id)), None)

    def _name(self, path: Path) -> str:
        return str(path).removeprefix(FOLDER + "/")

    def _load(self, path: Path, kind: type[T]) -> T | None:
        data = self._files.by_name.get(self._name(path))
        try:
            return None if data is None else codec.decode(data, kind)
        except InvalidValue:
            return None

    def _save(self, path: Path, value: object, *, durable: bool = False) -> None:
        self._files.by_name[self._name(path)] = codec.encode(value)


class SimMachine:
    """The Machine of a simulated host: plenty of everything, and nobody else on its ports."""

    def attributes(self) -> dict[str, str]:
        return {"arch": "x86_64", "os": "linux"}

    def memory_mb(self) -> int:
        return MEMORY_MB

    def cpu_units(self) -> int:
        return CPU_UNITS

    def disk_mb(self, folder: Path) -> int:
        return DISK_MB

    def free_disk_mb(self, folder: Path) -> int:
        return DISK_MB

    def ports_in_use(self) -> set[int]:
        return set()

    def taken_ports(self, bindings: Collection[Binding]) -> dict[Binding, str]:
        return {}

    def outgoing_ports(self) -> list[tuple[int, int]]:
        return []

    def reserved_ports(self) -> str:
        return ""
