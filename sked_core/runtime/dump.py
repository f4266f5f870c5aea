"""The whole state of a store as one JSON document, and the way back into an empty store of any kind.

What moves is what nobody would write anew in time: declarations, what is issued where, marks, roll-outs, events,
endings, decisions, statuses, the last word of tasks with ttl checks, and the store's id and counts, by which agents
know that it is still theirs and as new as they are. What is bound to a lease (locks, who lives) does not, nor what is
found out again at once: health, failures, and what changed lately. Keys of others are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from sked_core.errors import Conflict, InvalidManifest, InvalidValue, NotFound, Problem
from sked_core.interfaces.store import Check, Entry, Put, Revision, Store, check_key
from sked_core.model import keys
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.runtime.scheduling.feed import presences
from sked_core.runtime.state import batches

T = TypeVar("T")
FORMAT = 1
MOVED = (
    *(keys.EVENTS, keys.ENDINGS, keys.DECISIONS, keys.AGENTS, keys.STATE, keys.REPORTS, keys.MARKS),
    *(keys.ROLLOUTS, keys.ROLLOUT_HISTORY, keys.CONFIG, keys.SERVICE_STATUS),
)
"""What a dump holds, in the order in which it is restored: whatever looks at half of it sees tasks before the services
that they are of, and services before the statuses that say whose they are; so nothing is placed or withdrawn."""
OWN = (*MOVED, keys.META, keys.HOST_STATES, keys.LOCKS, keys.HEALTH, keys.SCHEDULING, keys.FAILURES)
MAX_VALUE_BYTES = 2 * MAX_OBJECT_BYTES
"""What every store takes; nothing that Sked writes is half as large."""
MAX_PROBLEMS = 20
_encode = msgspec.json.encode
_TOKEN = re.compile(rb'[{}]|("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+(:?)')


class Item(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key. Its value stands in the one form that gives back the same bytes: an object if that is possible, else
    text, else base64."""

    key: str
    json: dict[str, Any] | None = None
    text: str | None = None
    base64: bytes | None = None

    @property
    def value(self) -> bytes:
        """The bytes to be stored. Raises InvalidValue unless exactly one form is given, of a size that stores take."""
        forms = [form for form in (self.json, self.text, self.base64) if form is not None]
        if len(forms) != 1:
            raise InvalidValue("needs one of json, text and base64")
        form = forms[0]
        value = form.encode() if isinstance(form, str) else form if isinstance(form, bytes) else _encode(form)
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidValue(f"{len(value)} bytes are more than the {MAX_VALUE_BYTES} of one value")
        return value


class Head(Struct, frozen=True, kw_only=True):
    """What is read first, to tell whether the rest can be. ``sked``: the version that wrote it."""

    kind: str = ""
    format: int = 0
    sked: str = ""


class Dump(Struct, frozen=True, kw_only=True):
    """The document. ``made``: when, for people (RFC 3339). ``items``: in order of their keys, the store's id apart."""

    api: str = "sked/v1"
    kind: str = "StateDump"
    format: int = FORMAT
    sked: str
    made: str
    store_uid: str
    items: Sequence[Item]

    def encode(self) -> bytes:
        return msgspec.json.format(_encode(self), indent=1) + b"\n"


def take(store: Store, *, sked: str, made: str) -> tuple[Dump, Sequence[str]]:
    """What the store holds, in one consistent picture, and the names of the schedulers that were alive in it.

    Raises NotFound for a store that no agent and no scheduler works for, Denied, Unavailable.
    """
    entries = store.read("").entries
    for prefix in MOVED:
        if not any(key.startswith(prefix) for key in entries):
            store.read(prefix)  # a store may leave out what this caller may not read; asked for it, it says so
    named = entries.get(keys.STORE_UID)
    if named is None:
        raise NotFound(
            f"the store holds no {keys.STORE_UID}: nothing of Sked, or half of something that is being restored",
            hint="is the address right, and the prefix?",
        )
    items = [_item(key, entries[key].value) for key in sorted(entries) if key.startswith(MOVED)]
    living = [name for name, _ in presences(entries)]
    return Dump(sked=sked, made=made, store_uid=named.value.decode("ascii", "replace"), items=items), living


def _item(key: str, value: bytes) -> Item:
    try:
        found = msgspec.json.decode(value, type=dict[str, Any])
        if _encode(found) == value:
            return Item(key=key, json=found)
    except (msgspec.DecodeError, RecursionError, ValueError):
        found = None  # no object: text, or bytes
    try:
        return Item(key=key, text=value.decode())
    except UnicodeDecodeError:
        return Item(key=key, base64=value)


def parse(data: bytes, file: str) -> Dump:
    """The dump in ``data``. Raises InvalidManifest with what is wrong with it, the first MAX_PROBLEMS of it."""
    head = _decode(data, Head, file)
    if head.kind != "StateDump":
        raise InvalidManifest([Problem("", 'no dump of `sked state dump` (its kind would be "StateDump")', file)])
    if head.format != FORMAT:
        what = f"format {head.format} is not the {FORMAT} that this version reads; restore it with sked {head.sked}"
        raise InvalidManifest([Problem("format", what, file)])
    dump = _decode(data, Dump, file)
    _refuse_repeated(data, file)
    if problems := list(_problems(dump, file)):
        raise InvalidManifest(problems[:MAX_PROBLEMS])
    return dump


def _decode(data: bytes, kind: type[T], file: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidManifest([Problem("", f"no whole dump: {str(error)[:300]}", file)]) from None


def _refuse_repeated(data: bytes, file: str) -> None:
    """Whoever reads JSON takes the last of two fields of one name, and says nothing. ``data`` is sound JSON."""
    opened: list[set[str]] = []
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"}"):
            opened = [*opened, set()] if token[0] == b"{" else opened[:-1]
        elif token[2]:
            if (name := _decode(token[1], str, file)) in opened[-1]:
                before = data[: token.start()].decode("utf-8", "replace")
                place = before.count("\n") + 1, len(before) - before.rfind("\n")
                raise InvalidManifest([Problem("", f"{name!r:.80} stands here twice in one object", file, *place)])
            opened[-1].add(name)


def _problems(dump: Dump, file: str) -> Iterator[Problem]:
    if not (dump.store_uid.isascii() and dump.store_uid.isprintable() and 0 < len(dump.store_uid) <= 64):
        yield Problem("store_uid", f"{dump.store_uid!r:.80} can't name a store", file)
    seen: set[str] = set()
    for number, item in enumerate(dump.items):
        try:
            check_key(item.key)
            if not item.key.startswith(MOVED):
                raise InvalidValue(f"{item.key!r:.80} is none of the keys that a dump has: {', '.join(MOVED)}")
            if item.key in seen:
                raise InvalidValue(f"{item.key!r:.80} stands here twice")
            seen.add(item.key)
            len(item.value)
        except InvalidValue as error:
            yield Problem(f"items[{number}]", str(error), file)


def put(store: Store, dump: Dump) -> int:
    """Write a dump that was parsed into an empty store, its id last: until then agents freeze rather than believe what
    they see. Returns how many keys were written; a restore that was cut short is gone on with.

    Raises Conflict, having changed nothing that was there, if the store holds anything else of Sked's or somebody
    writes at the same time; Unavailable.
    """
    wanted = {item.key: item.value for item in dump.items}
    uid = dump.store_uid.encode()
    entries = store.read("").entries
    _refuse_others(entries, wanted | {keys.STORE_UID: uid})
    missing = sorted(wanted.keys() - entries.keys(), key=lambda key: ([not key.startswith(one) for one in MOVED], key))
    if keys.STORE_UID in entries:
        return 0
    unnamed = Check(keys.STORE_UID, Revision(0))
    groups = ((Check(key, Revision(0)), Put(key, wanted[key])) for key in missing)
    try:
        for batch in batches(groups, max_ops=store.max_ops - 1):
            store.commit([unnamed, *batch])
        store.commit([unnamed, Put(keys.STORE_UID, uid)])
    except Conflict as error:
        error.hint = "somebody else works with this store already: stop that, empty the store and restore again"
        raise
    return len(missing) + 1


def _refuse_others(entries: Mapping[str, Entry], wanted: Mapping[str, bytes]) -> None:
    own = {key: entry.value for key, entry in entries.items() if key.startswith(OWN)}
    others = sorted(key for key, value in own.items() if wanted.get(key) != value)
    if keys.STORE_UID in own and wanted.keys() - own.keys():
        others = others or [keys.STORE_UID]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise Conflict(
            f"the store is not empty, and holds other things than the dump: {others[0]}{more}; nothing was written",
            hint="restore into a store, or below a --prefix, that nothing has used yet",
        )
