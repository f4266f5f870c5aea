"""All tasks of a store in little memory: what equal tasks have in common is kept once, and no raw JSON.

Tasks of one service differ in instance, host and port; their cluster and task definition are most of the record. Those
are decoded once for all records that spell them in the same bytes. What was read is remembered by a hash, to tell
whether it has changed since, and raw only where writing the decoded task would lose something (unknown fields).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry
from sked_core.logic.plan import Issued
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Task, TaskDefinition
from sked_core.runtime.state import decode_task

MAX_SHARED = 20_000
"""So many different clusters and definitions are shared; beyond that sharing begins anew."""

_SHARED: dict[str, type] = {"cluster": Cluster, "task_definition": TaskDefinition}
_Record: Any = msgspec.defstruct(
    "_Record",
    [
        (
            field.name,
            msgspec.Raw if field.name in _SHARED else field.type,
            *(() if field.required else (field.default,)),
        )
        for field in msgspec.structs.fields(Task)
    ],
    kw_only=True,
)
"""A Task whose shared parts are left undecoded."""


class TaskRecords:
    """The tasks by key. ``faults``: keys that hold none, with the reason."""

    def __init__(self) -> None:
        self.objects: dict[str, Issued] = {}
        self.faults: dict[str, str] = {}
        self._read: dict[str, int] = {}
        """A hash of what stands under each key."""
        self._raw: dict[str, bytes] = {}
        self._shared: dict[tuple[type, bytes], object] = {}

    def take(self, entries: Mapping[str, Entry], known: Iterable[str] | None = None) -> dict[str, Issued | None]:
        """Replace what stands under ``known`` keys (all, if not given) by ``entries``. Only what changed is decoded;
        returned are the changed keys with the tasks that were there before."""
        gone = set(self._read if known is None else known) - entries.keys()
        changed = {key: self._drop(key) for key in gone if key in self._read}
        for key, entry in entries.items():
            found = hash((entry.value, entry.revision))
            if self._read.get(key) == found:
                continue
            changed[key] = self._drop(key)
            self._read[key] = found
            try:
                self.objects[key] = one = self._decoded(key, entry)
            except InvalidValue as error:
                self.faults[key] = str(error)
                continue
            if _says_more(entry.value, one.task):
                self._raw[key] = entry.value
        return changed

    def put(self, key: str, entry: Entry, one: Issued) -> dict[str, Issued | None]:
        """As ``take`` of one entry that this process wrote, whose task is known."""
        kept_more = key in self._raw
        changed = {key: self._drop(key)}
        self._read[key], self.objects[key] = hash((entry.value, entry.revision)), one
        if kept_more and _says_more(entry.value, one.task):
            self._raw[key] = entry.value
        return changed

    def raw(self, key: str) -> bytes | None:
        """The bytes under ``key`` if they say more than the task does."""
        return self._raw.get(key)

    def _drop(self, key: str) -> Issued | None:
        self._read.pop(key, None)
        self._raw.pop(key, None)
        self.faults.pop(key, None)
        return self.objects.pop(key, None)

    def _decoded(self, key: str, entry: Entry) -> Issued:
        """As ``state.decode_task``, with what other records have as well taken from them. Raises InvalidValue."""
        try:
            record = codec.decode(entry.value, _Record)
            fields = {name: getattr(record, name) for name in record.__struct_fields__}
            for name, kind in _SHARED.items():
                fields[name] = self._one(kind, bytes(fields[name]))
        except InvalidValue:
            return decode_task(key, entry)  # which says where it is wrong
        task = Task(**fields | {"service": sys.intern(record.service), "host": sys.intern(record.host)})
        return Issued(task, entry.revision) if task.id == keys.last_segment(key) else decode_task(key, entry)

    def _one(self, kind: type, raw: bytes) -> object:
        found = self._shared.get((kind, raw))
        if found is None:
            if len(self._shared) >= MAX_SHARED:
                self._shared.clear()
            found = self._shared[kind, raw] = codec.decode(raw, kind)
        return found


def _says_more(value: bytes, task: Task) -> bool:
    """Whether ``value`` is anything else than ``task`` as this process would write it."""
    try:
        return codec.encode(task) != value
    except InvalidValue:
        return True  # larger than what may be written
