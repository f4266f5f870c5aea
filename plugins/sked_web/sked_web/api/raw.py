"""The store as it is, for administrators: keys and values that no picture holds are there too."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from sked_core.client.held import order
from sked_core.errors import InvalidValue, NotFound
from sked_core.model.spec import plain
from sked_core.plugin import Entry, check_key
from sked_core.serving.tokens import Role
from sked_web.api import shapes
from sked_web.api.paging import Page, page
from sked_web.api.table import Call, Found, Route, get

MAX_SHOWN = 1024 * 1024
"""Bytes of one value that are shown."""


class StateAsked(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys below ``prefix``; with ``values`` also what stands there."""

    prefix: Annotated[str, Meta(max_length=1024)] = ""
    values: bool = False


class KeyAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key."""

    key: Annotated[str, Meta(min_length=1, max_length=1024)]


def listed(call: Call) -> Found:
    asked: StateAsked = call.query
    if asked.prefix:
        check_key(asked.prefix, prefix=True)
    entries = call.sked.store.read(asked.prefix).entries
    found, more = page(sorted(entries.items(), key=lambda pair: order(pair[0])), asked, lambda pair: pair[0])
    return Found([_item(key, entry, values=asked.values) for key, entry in found], more)


def value(call: Call) -> Found:
    key = check_key(call.query.key)
    entry = call.sked.store.read(key).entries.get(key)
    if entry is None:
        raise NotFound(f"no key {plain(key)}", hint="GET /v1/state?prefix=… lists keys")
    return Found([_item(key, entry, values=True)], revision=entry.revision)


def _item(key: str, entry: Entry, *, values: bool) -> dict[str, object]:
    item: dict[str, object] = {
        "key": key,
        "revision": entry.revision,
        "lease": entry.lease,
        "size": len(entry.value),
    }
    return item | {"value": _value(entry.value)} if values else item


def _value(data: bytes) -> object:
    if len(data) > MAX_SHOWN:
        raise InvalidValue(f"a value of {len(data)} bytes is too large to be shown")
    with suppress(msgspec.DecodeError, RecursionError, ValueError):
        return msgspec.json.decode(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(data).decode()


def routes() -> list[Route]:
    return [
        get("/v1/state", "StateList", shapes.StateItem, listed, "Keys of the store.", role=Role.ADMIN,
            query=StateAsked),
        get("/v1/state/value", "State", shapes.StateItem, value, "What stands under one key.", role=Role.ADMIN,
            query=KeyAsked),
    ]  # fmt: skip
