"""The wire format of protocol buffers, as much of it as etcd's messages need.

https://protobuf.dev/programming-guides/encoding/. Field numbers and types come from etcd's rpc.proto and kv.proto,
which are frozen; written by hand they need no generated code that fits only some versions of a runtime.
"""

from __future__ import annotations

Value = int | bytes


def field(number: int, value: int | bytes | str) -> bytes:
    """One field (``number`` below 16) with a whole number that is not negative, or with bytes."""
    if isinstance(value, int):
        return bytes((number << 3,)) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return bytes((number << 3 | 2,)) + varint(len(value)) + value


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def fields(data: bytes) -> list[tuple[int, Value]]:
    """All fields of a message in their order; numbers as they are, unsigned. Raises ValueError if it is none."""
    found: list[tuple[int, Value]] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag, position = _varint(data, position)
            kind = tag & 7
            if kind == 0:
                number, position = _varint(data, position)
                found.append((tag >> 3, number))
                continue
            length = {1: 8, 5: 4}.get(kind, -1)
            if kind == 2:
                length, position = _varint(data, position)
            if length < 0 or position + length > end:
                raise ValueError("a field that can't be")
            found.append((tag >> 3, data[position : position + length]))
            position += length
    except IndexError:
        raise ValueError("a message that breaks off") from None
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    if byte < 0x80:
        return byte, position
    number, shift = byte & 0x7F, 7
    while shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise ValueError("a number that does not end")


def number(found: dict[int, Value], key: int) -> int:
    """The whole number in field ``key``, 0 if it is absent. Raises ValueError for anything else."""
    value = found.get(key, 0)
    if not isinstance(value, int):
        raise ValueError(f"field {key} is no number")
    return value


def data(found: dict[int, Value], key: int) -> bytes:
    """The bytes in field ``key``, none if it is absent. Raises ValueError for anything else."""
    value = found.get(key, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {key} is no text")
    return value
