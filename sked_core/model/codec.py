"""JSON of the store: readers ignore unknown fields, writers keep them, nothing undecodable spreads."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from sked_core.errors import InvalidValue
from sked_core.model.types import Task

T = TypeVar("T")
MAX_OBJECT_BYTES = 160 * 1024
"""Largest JSON of one object: two copies and base64 still fit into one Consul transaction (reliability.md C4)."""

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def encode(value: object) -> bytes:
    """Compact JSON of a struct or of plain data. Raises InvalidValue where it would exceed MAX_OBJECT_BYTES."""
    data = msgspec.json.encode(value)
    if len(data) > MAX_OBJECT_BYTES:
        raise InvalidValue(
            f"object of {len(data)} bytes is larger than the {MAX_OBJECT_BYTES} that a store key may hold"
        )
    return data


def decode(data: bytes, kind: type[T]) -> T:
    """The object of type ``kind`` in ``data``. Raises InvalidValue with one line that says where and why."""
    if len(data) > 4 * MAX_OBJECT_BYTES:
        raise InvalidValue(f"object of {len(data)} bytes is too large")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidValue(f"not a valid {kind.__name__}: {str(error)[:300]}") from None


def patch(data: bytes, **changes: object) -> bytes:
    """``data``, a JSON object, with ``changes`` made and every other field kept, known or not."""
    fields = decode(data, dict)
    fields.update(changes)
    return encode(fields)


def digest(task: Task) -> str:
    """16 hex digits that change when what has to run changes (definition or port) or a restart is asked for, and only
    then: what was started from a record of another digest is stopped and started."""
    what: tuple[object, ...] = (task.task_definition, task.port)
    if task.restarts:  # neither 0 nor unset, which tasks are that nobody ever restarted
        what += (task.restarts,)
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:16]
