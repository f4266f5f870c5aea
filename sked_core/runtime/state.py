"""Reading objects out of snapshots, and turning changes into commits. Nothing undecodable spreads."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence

from sked_core.errors import Conflict, Denied, InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision, Store, entry_at
from sked_core.logic.plan import Change, Issued
from sked_core.model import codec, keys
from sked_core.model.types import Task

log = logging.getLogger("sked.state")
MAX_COMMIT_BYTES = 340 * 1024
"""Raw bytes of values in one commit: base64 of it stays below 480 KiB (Consul takes 512 KiB, reliability.md C4)."""


def decode_task(key: str, entry: Entry, host: str | None = None) -> Issued:
    """The task in ``entry``. Raises InvalidValue unless it is one whose id (and ``host``, if given) is the key's."""
    task = codec.decode(entry.value, Task)
    if task.id != keys.last_segment(key):
        raise InvalidValue(f"the key says {keys.last_segment(key)}, the record {task.id}")
    if host is not None and task.host not in ("", host):
        raise InvalidValue(f"the key says host {host}, the record {task.host}")
    return Issued(task, entry.revision)


def store_uid(store: Store, *, create: bool = False) -> str:
    """The id that names this store, made now if it has none and ``create``; ``""`` for none. Raises Unavailable."""
    entry = entry_at(store, keys.STORE_UID)
    if entry is None and create:
        try:
            store.commit([Check(keys.STORE_UID, Revision(0)), Put(keys.STORE_UID, secrets.token_hex(8).encode())])
        except Conflict:
            log.debug("somebody else named the store first")
        except Denied as error:
            hint = "start a scheduler, or apply something: that names it"
            raise Denied(f"the store has no id yet, and who asks may not give it one: {error}", hint=hint) from None
        entry = entry_at(store, keys.STORE_UID)
    return entry.value.decode("ascii", "replace") if entry else ""


def change_ops(change: Change, raw: bytes | None) -> list[Op]:
    """The ops of one change, guarded by the revision it was decided on. ``raw``: the stored bytes of ``before``
    where they say more than it does, which is kept. The two task keys always change together."""
    before, after = change.before, change.after
    task = after or (before.task if before else None)
    if task is None:
        return []
    key = keys.task(task.id)
    ops: list[Op] = [Check(key, before.revision if before else Revision(0))]
    if before is not None and before.task.host and (after is None or after.host != before.task.host):
        ops.append(Delete(keys.host_task(before.task.host, task.id)))
    if after is None:
        ops.append(Delete(key))
    else:
        kept = raw is not None and before is not None and not after.scheduled
        value = codec.patch(raw, scheduled=False) if kept and raw is not None else codec.encode(after)
        ops += [Put(key, value), Put(keys.host_task(after.host, task.id), value)]
    return ops


def marker(service: str, by: str) -> Put:
    """What every commit that changes tasks of ``service`` carries, for schedulers to notice. ``by`` is for people."""
    return Put(keys.changed(service), by.encode())


def batches(groups: Iterable[Sequence[Op]], *, max_ops: int, max_bytes: int = MAX_COMMIT_BYTES) -> Iterator[list[Op]]:
    """Join groups of ops into commits within the limits, never splitting a group."""
    batch: list[Op] = []
    size = 0
    for group in groups:
        weight = sum(len(op.value) for op in group if isinstance(op, Put))
        if batch and (len(batch) + len(group) > max_ops or size + weight > max_bytes):
            yield batch
            batch, size = [], 0
        batch.extend(group)
        size += weight
    if batch:
        yield batch
