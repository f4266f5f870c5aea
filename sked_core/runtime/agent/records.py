"""The writes that an agent makes about a task: that it won't run it, and that it is gone. All are guarded, so that an
agent never touches a task that has meanwhile moved to another host."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sked_core.errors import Conflict, InvalidValue
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision, Store, entry_at
from sked_core.model import codec, keys
from sked_core.model.types import Failure, Task, TaskId
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.state import marker

log = logging.getLogger("sked.agent")
MAX_REASON = 1024
"""Characters of a reject reason that are kept (reliability.md I6)."""


def reject(store: Store, host: str, record: Record, reason: str, failure: Failure | None = None) -> bool:
    """Set ``rejected`` and the reason in both keys, and keep ``failure``, so that whoever sees the one sees the other.
    Nothing happens, and False is returned, if the record has changed
    since: it is read again anyway. Raises Unavailable."""
    also = [Put(keys.failure(record.task.id), codec.encode(failure))] if failure is not None else []
    return _rewrite(store, host, record, {"rejected": True, "reject_reason": reason[:MAX_REASON]}, also)


def retire(store: Store, host: str, record: Record) -> None:
    """Remove both keys of a task that was asked to stop and is gone. Raises Unavailable."""
    _rewrite(store, host, record, None)


def tidy(store: Store, host: str, task_id: TaskId, store_uid: str) -> None:
    """Remove ``state/tasks/<id>`` of a task whose key under this host is gone, if it still names this host: somebody
    removed one key only, which stops a task as well, and schedulers should know. If it names another host whose key
    lacks, that is written: nobody else would notice. Nothing happens in any other store than ``store_uid``. Raises
    Unavailable."""
    shared = keys.task(task_id)
    entry = entry_at(store, shared)
    try:
        task = codec.decode(entry.value, Task) if entry is not None else None
    except InvalidValue:
        return
    if entry is None or task is None:
        return
    named = entry_at(store, keys.STORE_UID)
    if named is None or named.value != store_uid.encode():
        return
    theirs = keys.host_task(task.host or host, task_id)
    if entry_at(store, theirs) is not None:
        return
    guards = [Check(keys.STORE_UID, named.revision), Check(theirs, Revision(0))]
    if task.host in ("", host):
        change: list[Op] = [Check(shared, entry.revision), Delete(shared), marker(task.service, host)]
    else:
        change = [Check(shared, entry.revision), Put(theirs, entry.value)]
    try:
        store.commit([*guards, *change])
    except Conflict:
        log.debug("%s was issued again", task_id, extra={"task": task_id})


def _rewrite(
    store: Store, host: str, record: Record, changes: dict[str, object] | None, also: Sequence[Put] = ()
) -> bool:
    task_id = record.task.id
    mine, shared = keys.host_task(host, task_id), keys.task(task_id)
    ops: list[Op] = [Check(mine, record.revision)]
    entry = entry_at(store, shared)
    if entry is not None and _names_host(entry.value, host):
        ops += [Check(shared, entry.revision), _op(shared, entry.value, changes)]
    ops += [_op(mine, record.raw, changes), marker(record.task.service, host), *also]
    try:
        store.commit(ops)
    except Conflict:
        log.debug("%s was changed by somebody else first", task_id, extra={"task": task_id})
        return False
    return True


def _op(key: str, raw: bytes, changes: dict[str, object] | None) -> Op:
    return Delete(key) if changes is None else Put(key, codec.patch(raw, **changes))


def _names_host(raw: bytes, host: str) -> bool:
    try:
        return codec.decode(raw, Task).host in ("", host)
    except InvalidValue:
        return False
