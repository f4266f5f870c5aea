"""The Store port over Consul's KV: consistent reads, guarded transactions, blocking queries, sessions as leases."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import consul.base  # type: ignore[import-untyped]
import msgspec

from sked_consul.address import parse_address
from sked_consul.client import Client, NotConnected, blocking
from sked_consul.doubts import doubts
from sked_consul.exposure import unguarded
from sked_core.plugin import (
    CheckOp,
    Conflict,
    Delete,
    Entry,
    Fence,
    InvalidValue,
    LeaseLost,
    Op,
    Put,
    Revision,
    SkedError,
    Snapshot,
    Unavailable,
    check_key,
)

CONNECTIONS = 6
"""With the two of the health provider: no more than 8 from one process to one Consul."""
WAITING_CONNECTIONS = 4
MAX_BODY_BYTES = 480 * 1024
"""Of one transaction. Consul takes 512 KiB, and above that may just drop the connection (reliability.md 2.6)."""
LONGEST_WAIT_SECONDS = 60.0
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 10.0, 86400.0
QUIET_SECONDS = 0.1
POLL_SECONDS = 1.0


class _Pair(msgspec.Struct, rename={"key": "Key", "value": "Value", "index": "ModifyIndex", "session": "Session"}):
    key: str
    index: int
    value: bytes | None = None  # null stands for an empty value; bytes are base64 in JSON, as in Consul's
    session: str = ""


class _Result(msgspec.Struct, rename={"pair": "KV"}):
    pair: _Pair


class _Error(msgspec.Struct, rename={"position": "OpIndex", "what": "What"}):
    position: int
    what: str


class _Session(msgspec.Struct, rename={"id": "ID"}):
    id: Annotated[str, msgspec.Meta(min_length=1)]


class _Outcome(msgspec.Struct, rename={"results": "Results", "errors": "Errors"}):
    results: list[_Result] | None
    errors: list[_Error] | None


@dataclass(slots=True)
class ConsulLease:
    """A session that is bound to nothing but its ttl, and whose keys are deleted with it.

    Consul ends it between one and two ttl after the last renewal.
    """

    id: str
    ttl: float
    client: Client

    def renew(self) -> None:
        try:
            renewed = self.client.session.renew(self.id)
        except consul.base.NotFound as error:
            if self.id not in str(error):
                raise Unavailable("what answered the renewal of a session is no Consul") from None
            raise LeaseLost(f"Consul has ended the session {self.id}") from None
        if not renewed:
            raise Unavailable("Consul did not say whether it renewed the session")

    def revoke(self) -> None:
        if not self.client.session.destroy(self.id):
            raise Unavailable("Consul did not say whether it ended the session")


class ConsulStore:
    """See sked_core.interfaces.store.Store."""

    max_ops = 30  # an op takes up to two of the 64 operations that Consul has in one transaction

    def __init__(self, url: str) -> None:
        self._client = Client(parse_address(url, os.environ), connections=CONNECTIONS)
        self._closed = threading.Event()
        self._waiting = threading.BoundedSemaphore(WAITING_CONNECTIONS)
        self._seen: dict[str, tuple[int, int]] = {}  # prefix: index that was read or waited for, epoch
        self._empty: dict[str, int] = {}  # prefix: index at which it held nothing

    def __repr__(self) -> str:
        return f"ConsulStore({self._client.http.address})"

    def read(self, prefix: str) -> Snapshot:
        _check_prefix(prefix)
        index, pairs = self._client.fetch(f"/v1/kv/{prefix}", list[_Pair], [("recurse", ""), ("consistent", "")])
        epoch = self._client.http.sent_in_epoch
        if pairs is None and prefix:
            # A token that may not read gets an empty list; asked for one key, Consul says that it is denied.
            self._client.fetch(f"/v1/kv/{prefix}", list[_Pair], [("consistent", "")])
        self._note(prefix, index, epoch, empty=pairs is None)
        entries = {pair.key: Entry(pair.value or b"", Revision(pair.index), pair.session) for pair in pairs or ()}
        return Snapshot(entries, Revision(index))

    def read_keys(self, prefix: str) -> Collection[str]:
        """As ``read``, the keys alone: Consul sends no values for ``?keys``."""
        _check_prefix(prefix)
        _, keys = self._client.fetch(f"/v1/kv/{prefix}", list[str], [("keys", ""), ("consistent", "")])
        return self.read(prefix).entries if keys is None else keys  # which tells a denial from nothing

    def commit(self, ops: Sequence[Op]) -> Revision:
        if len(ops) > self.max_ops:
            raise InvalidValue(f"{len(ops)} operations are more than the {self.max_ops} of one Consul transaction")
        written = [op.key for op in ops if isinstance(op, Put | Delete)]
        if len(set(written)) < len(written):
            raise InvalidValue("one commit writes a key twice")
        verbs = _verbs(ops)
        body = msgspec.json.encode([{"KV": verb} for verb in verbs])
        if len(body) > MAX_BODY_BYTES:
            raise InvalidValue(f"a commit of {len(body)} bytes is more than the {MAX_BODY_BYTES} that Consul takes")
        outcome: _Outcome = self._client.http.put(_outcome, "/v1/txn", [("consistent", "")], body)
        if outcome.errors or outcome.results is None:
            errors = outcome.errors or []
            if any("Permission denied" in error.what for error in errors):
                raise self._client.http.denied("/v1/txn", "Permission denied")
            raise _failure(verbs, errors)
        indexes = [result.pair.index for result in outcome.results]
        deleted = [op.key for op in ops if isinstance(op, Delete)]
        if not deleted or any(isinstance(op, Put) for op in ops):
            return Revision(max(indexes, default=0))
        # Deletions report no index; the place where the key was keeps it.
        return Revision(max(self._look(deleted[-1], 0, 0)[0], *indexes, 0))

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        """As the port has it. A prefix that holds nothing wakes Consul's queries at every write to the store:
        that is absorbed here, at no more than ten looks a second."""
        _check_prefix(prefix)
        deadline = time.monotonic() + timeout
        current = int(since)
        connected = True
        while not self._closed.is_set():
            begun = time.monotonic()
            # An index means something on one server only: after a wipe or a restore a query would just block on one
            # that lies ahead, and on the same one it would miss that there is other data behind it. So it blocks
            # from what this very server has said, and wakes where the server may have become another.
            at, said_in = self._seen.get(prefix, (-1, 0))
            known = at == current and said_in == self._client.http.epoch and connected
            left = min(deadline - begun, LONGEST_WAIT_SECONDS) if known else 0.0
            try:
                index, empty = self._look(prefix, current, left)
            except NotConnected:
                connected = False  # the next look connects; then it shows to whom
                continue
            connected, epoch = True, self._client.http.sent_in_epoch
            moved = at == current and said_in != epoch
            was_empty = self._empty.get(prefix) == current
            self._note(prefix, index, epoch, empty=empty)
            if moved or (index != current and not (empty and was_empty and index > current)):
                return Revision(index)
            pause = QUIET_SECONDS if left > 0 else 0.0
            current = index
            now = time.monotonic()
            if now >= deadline:
                break
            self._closed.wait(min(max(0.0, begun + pause - now), deadline - now))
        return Revision(current)

    def grant(self, ttl: float) -> ConsulLease:
        seconds = min(max(ttl, MIN_TTL_SECONDS), MAX_TTL_SECONDS)
        # No node checks: a flapping gossip must end no lease. No lock delay: the Fence is what keeps a late
        # writer out, and a delay would only keep the next holder waiting.
        wanted = {"Name": "sked", "Checks": [], "LockDelay": "0s", "Behavior": "delete", "TTL": f"{seconds}s"}
        made: _Session = self._client.http.put(_session, "/v1/session/create", data=msgspec.json.encode(wanted))
        return ConsulLease(made.id, seconds, self._client)

    def unguarded(self) -> list[tuple[str, str]]:
        """What keeps nobody out, where other machines reach it; said at the start of agents and schedulers."""
        return unguarded(self._client.http.address)

    def doubts(self) -> list[tuple[str, str]]:
        """What of Consul had better be otherwise, for `sked doctor`."""
        return doubts(self._client.http.address.host)

    def close(self) -> None:
        self._closed.set()
        self._client.http.close()

    def _look(self, prefix: str, index: int, seconds: float) -> tuple[int, bool]:
        """The index of a prefix and whether it holds nothing, once it has passed ``index`` or the time is over.

        More waits at once than there are connections for become a look each second.
        """
        path = f"/v1/kv/{prefix}"
        if seconds > 0 and self._waiting.acquire(blocking=False):
            try:
                ends = time.monotonic() + seconds
                with self._client.http.keeping_to_open_connections():
                    found, keys = self._client.fetch(path, list[str], [("keys", ""), *blocking(index, seconds)])
                if found == index and time.monotonic() < ends:
                    # So Consul ends queries when a snapshot is restored, and would be silent on the same index then.
                    found, keys = self._client.fetch(path, list[str], [("keys", ""), ("consistent", "")])
            except Unavailable:
                if not self._closed.is_set():
                    raise
                return index, False
            finally:
                self._waiting.release()
        else:
            self._closed.wait(min(seconds, POLL_SECONDS))
            found, keys = self._client.fetch(path, list[str], [("keys", ""), ("consistent", "")])
        return found, not keys

    def _note(self, prefix: str, index: int, epoch: int, *, empty: bool) -> None:
        if len(self._seen) > 1000:  # prefixes that were read once; forgetting costs one more look
            self._seen.clear()
            self._empty.clear()
        self._seen[prefix] = (index, epoch)
        if empty:
            self._empty[prefix] = index
        else:
            self._empty.pop(prefix, None)


def _check_prefix(prefix: str) -> None:
    if prefix:
        check_key(prefix, prefix=True)


def _verbs(ops: Sequence[Op]) -> list[dict[str, Any]]:
    """The transaction, guards first. A Put deletes first what is there, for two reasons: a plain ``set`` would
    leave a key bound to its session, and ``lock`` would not take it over from another one."""
    guards: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    absent = {op.key for op in ops if isinstance(op, CheckOp) and op.revision == 0}
    for op in ops:
        key = check_key(op.key)
        match op:
            case CheckOp(revision=0):
                guards.append({"Verb": "check-not-exists", "Key": key})
            case CheckOp():
                guards.append({"Verb": "check-index", "Key": key, "Index": op.revision})
            case Fence():
                guards.append({"Verb": "check-session", "Key": key, "Session": op.lease.id})
            case Delete():
                changes.append({"Verb": "delete", "Key": key})
            case Put():
                if key not in absent:
                    changes.append({"Verb": "delete", "Key": key})
                bound = {"Verb": "lock", "Session": op.lease.id} if op.lease else {"Verb": "set"}
                changes.append({**bound, "Key": key, "Value": op.value})
    return guards + changes


def _session(answer: Any) -> _Session:
    if answer.code != 200:
        raise ValueError(answer.code)
    return msgspec.json.decode(answer.content, type=_Session)


def _outcome(answer: Any) -> _Outcome:
    if answer.code == 404:
        raise ValueError(answer.code)
    return msgspec.json.decode(answer.content, type=_Outcome)


def _failure(verbs: Sequence[dict[str, Any]], errors: Sequence[_Error]) -> SkedError:
    """Why nothing was written."""
    for error in errors:
        if error.what.startswith("invalid session"):
            return LeaseLost(f"Consul has ended the lease for {verbs[error.position]['Key']}")
    for error in errors:
        verb = verbs[error.position]
        if verb["Verb"].startswith("check-") or verb["Verb"] == "lock":
            return Conflict(f"{verb['Key']} was changed by somebody else ({error.what[:300]})")
    said = errors[0].what[:300] if errors else "no reason given"
    return Unavailable(f"Consul did not carry out a transaction: {said}")
