"""The keys of a store as they are: listed, read and followed, whoever wrote them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from sked_core.client.notices import notice
from sked_core.errors import NotFound, Unavailable
from sked_core.interfaces.store import Entry, Revision, Snapshot, Store, entry_at, read_again
from sked_core.model.spec import did_you_mean, escaped, plain

WAIT_SECONDS, RETRY_SECONDS = 10.0, 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """A key that was written, or (``entry`` None) removed. ``revision``: up to which this was seen."""

    key: str
    entry: Entry | None
    revision: Revision


def listed(store: Store, prefix: str = "") -> list[tuple[str, Entry]]:
    """What stands below ``prefix``, in order. Raises InvalidValue, Denied, Unavailable."""
    return sorted(store.read(prefix).entries.items())


def got(store: Store, key: str) -> Entry:
    """What stands under ``key``. Raises NotFound, with a key that is like it."""
    found = entry_at(store, key)
    if found is None:
        folder = key[: key.rfind("/") + 1]
        near = did_you_mean(key, store.read(folder).entries).removeprefix(", ")
        raise NotFound(f"no key {key}", hint=near or f"what there is:  sked state ls {folder}".rstrip())
    return found


def changes(store: Store, prefix: str, stop: threading.Event) -> Iterator[Change]:
    """What changes below ``prefix`` from now on until ``stop`` is set; a key that was written several times between two
    looks comes once. Outages are noticed and waited for."""
    known: Snapshot | None = None
    away = False
    while not stop.is_set():
        try:
            found = read_again(store, prefix, known or Snapshot({}, Revision(0)))
            away = False
        except Unavailable as error:
            if not away:
                notice(f"{error}; trying again")
            away = True
            stop.wait(RETRY_SECONDS)
            continue
        if known is not None:
            for key in sorted(known.entries.keys() | found.entries.keys()):
                now, before = found.entries.get(key), known.entries.get(key)
                if now != before:
                    yield Change(key, now, found.revision)
        known = found
        try:
            store.wait(prefix, found.revision, WAIT_SECONDS)
        except Unavailable:
            stop.wait(RETRY_SECONDS)


def entry_json(key: str, entry: Entry) -> dict[str, Any]:
    """For programs: the value as ``json`` where it is an object or a list, else as ``text`` or ``base64``."""
    meta = {"key": key, "revision": int(entry.revision), "size": len(entry.value), "lease": entry.lease}
    return meta | value_json(entry.value)


def value_json(value: bytes) -> dict[str, Any]:
    """The value alone."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError, ValueError):
        if isinstance(msgspec.json.decode(value), (dict, list)):
            return {"json": msgspec.Raw(value)}
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": value}


def change_json(change: Change) -> dict[str, Any]:
    """For programs: ``change`` is ``put`` or ``delete``."""
    if change.entry is None:
        return {"change": "delete", "key": change.key, "revision": int(change.revision)}
    return {"change": "put"} | entry_json(change.key, change.entry)


def pretty(value: bytes) -> str:
    """A value for people: JSON in lines, with all that could drive a terminal as JSON's own escapes; other text in one
    line; bytes as what ``repr`` gives."""
    kind, found = next(iter(value_json(value).items()))
    if kind == "json":
        return escaped(msgspec.json.format(value, indent=2).decode())
    return plain(found) if kind == "text" else repr(value)
