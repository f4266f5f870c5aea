"""etcd's messages: requests as bytes, answers from bytes. Decoders raise ValueError for what is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sked_core.plugin import Entry, Revision
from sked_etcd.wire import data, field, fields, number

RANGE, TXN = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"
WATCH = "/etcdserverpb.Watch/Watch"
GRANT, REVOKE = "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseRevoke"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
STATUS = "/etcdserverpb.Maintenance/Status"

_EQUAL_CREATE, _EQUAL_MOD, _EQUAL_LEASE = field(2, 1), field(2, 2), field(2, 4)  # result 0, EQUAL, is left out


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a range: its entries in the order of their keys, the revision they are of, and if there is more."""

    entries: dict[str, Entry]
    revision: int
    more: bool
    count: int
    """Of all keys in the range, whatever was asked of them."""


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    """What etcd tells a watch: that it is created or canceled, of changes, or else how far it has come."""

    revision: int
    created: bool
    changed: bool
    canceled: bool
    compacted: int
    reason: str


def span(prefix: str) -> tuple[bytes, bytes]:
    """First key and end of all that starts with ``prefix`` (ASCII); a zero byte each stands for everything."""
    if not prefix:
        return b"\0", b"\0"
    key = prefix.encode()
    return key, key[:-1] + bytes((key[-1] + 1,))


def range_request(
    key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0, keys_only: bool = False, changed_from: int = 0
) -> bytes:
    return b"".join(
        (
            field(1, key),
            field(2, end) if end else b"",
            field(3, limit) if limit else b"",
            field(4, revision) if revision else b"",
            field(8, 1) if keys_only else b"",
            field(10, changed_from) if changed_from else b"",
        )
    )


def range_answer(answer: bytes) -> Page:
    entries: dict[str, Entry] = {}
    revision, more, count = 0, False, 0
    for key, value in fields(answer):
        if key == 2 and isinstance(value, bytes):
            pair = dict(fields(value))
            lease = number(pair, 6)
            entries[data(pair, 1).decode()] = Entry(
                data(pair, 5), Revision(number(pair, 3)), str(lease) if lease else ""
            )
        elif key == 1 and isinstance(value, bytes):
            revision = number(dict(fields(value)), 3)
        elif key == 3:
            more = bool(value)
        elif key == 4 and isinstance(value, int):
            count = value
    if not revision:
        raise ValueError("no revision")
    return Page(entries, revision, more, count)


def absent(key: str) -> bytes:
    """Compare: there is no such key."""
    return field(1, _EQUAL_CREATE + field(3, key) + field(5, 0))


def unchanged(key: str, revision: int) -> bytes:
    """Compare: the key's last change was at ``revision``."""
    return field(1, _EQUAL_MOD + field(3, key) + field(6, revision))


def bound(key: str, lease: int) -> bytes:
    """Compare: the key is bound to ``lease``."""
    return field(1, _EQUAL_LEASE + field(3, key) + field(8, lease))


def put(key: str, value: bytes, lease: int) -> bytes:
    return field(2, field(2, field(1, key) + field(2, value) + (field(3, lease) if lease else b"")))


def delete(key: str) -> bytes:
    return field(2, field(3, field(1, key)))


def txn_request(parts: Iterable[bytes]) -> bytes:
    """A transaction of compares and of what to do if they all hold; nothing is done if not."""
    return b"".join(parts)


def txn_answer(answer: bytes) -> tuple[bool, int]:
    """Whether the compares held, and the revision."""
    found = dict(fields(answer))
    return bool(number(found, 2)), header_revision(found)


def header_revision(found: dict[int, int | bytes]) -> int:
    revision = number(dict(fields(data(found, 1))), 3)
    if not revision:
        raise ValueError("no revision")
    return revision


def grant_request(seconds: int) -> bytes:
    return field(1, seconds)


def lease_request(lease: int) -> bytes:
    """To keep a lease alive, or to revoke it."""
    return field(1, lease)


def lease_answer(answer: bytes) -> tuple[int, int]:
    """Id and remaining ttl in seconds; a ttl of 0 says that the lease has ended."""
    found = dict(fields(answer))
    if not data(found, 1):
        raise ValueError("no header")
    return number(found, 2), number(found, 3)


def watch_request(prefix: str, start: int) -> bytes:
    """Watch ``prefix`` from revision ``start`` on, and be told now and then how far that has come."""
    key, end = span(prefix)
    return field(1, field(1, key) + field(2, end) + field(3, start) + field(4, 1))


def watch_answer(answer: bytes) -> WatchAnswer:
    found = dict(fields(answer))
    header = dict(fields(data(found, 1)))
    return WatchAnswer(
        revision=number(header, 3),
        created=bool(number(found, 3)),
        changed=11 in found,
        canceled=bool(number(found, 4)),
        compacted=number(found, 5),
        reason=data(found, 6).decode("utf-8", "replace"),
    )


def authenticate_request(user: str, password: str) -> bytes:
    return field(1, user) + field(2, password)


def authenticate_answer(answer: bytes) -> str:
    token = data(dict(fields(answer)), 2).decode("ascii")
    if not token or not token.isprintable():
        raise ValueError("no token")
    return token


def status_sizes(answer: bytes) -> tuple[int, int, str]:
    """Bytes of the member's database, those that it may have (0: it does not say, before etcd 3.6), and its alarms."""
    found = fields(answer)
    alarms = b", ".join(one for tag, one in found if tag == 8 and isinstance(one, bytes))
    single = dict(found)
    return number(single, 3), number(single, 12), alarms.decode("ascii", "replace")


def status_answer(answer: bytes) -> str:
    """Why the member can't be used, ``""`` if it can."""
    found = dict(fields(answer))
    if not data(found, 1):
        raise ValueError("no header")
    if not number(found, 4):
        return "it has no leader"
    return "it is a learner" if number(found, 10) else ""
