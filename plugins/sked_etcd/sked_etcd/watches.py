"""All waits of a process over one watch stream.

A watch tells of changes from a revision on, whatever the prefix holds. It says nothing at all, for ever, from a
revision that lies in the future, which is where a wiped or restored store leaves its clients; and a broken stream may
come back to such a store, grown past the revision meanwhile. So a watch is begun only from a revision that the server
has shown since the connection was made; any other is answered at once, to be read anew.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sked_core.plugin import Denied, Unavailable
from sked_etcd import messages
from sked_etcd.channel import Member, RpcError
from sked_etcd.client import Client
from sked_etcd.failures import reason_of, unreachable

KEPT = 32
"""Watches that nobody waits on, kept for the next wait on their prefix."""
_FAILURES = 2


@dataclass(slots=True, eq=False)
class _Watch:
    """One watched prefix.

    ``start``: changes after this revision are seen. ``known``: all changes up to here have been told. ``changed``:
    the revision of the last one. ``ended``: why it tells no more; ``denied`` if for a lack of permission.
    """

    prefix: str
    start: int
    told: threading.Condition
    known: int
    changed: int = 0
    waiting: int = 0
    ended: str = ""
    denied: bool = False


@dataclass(slots=True, eq=False)
class _Stream:
    member: Member
    call: Any
    requests: queue.SimpleQueue[bytes | None]
    watches: dict[int, _Watch] = field(default_factory=dict)
    ended: str = ""


class Watches:
    """``wait`` as the Store port has it, for any number of threads and prefixes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._stream: _Stream | None = None
        self._watches: dict[str, _Watch] = {}
        self._last_id = 0
        self._closed = False
        client.on_drop = self._leave

    def wait(self, prefix: str, since: int, timeout: float) -> int:
        """The revision to wait from next, once something may have changed or the time is over.

        Raises Unavailable and Denied.
        """
        deadline = time.monotonic() + timeout
        low, high = self._client.revisions
        for _ in range(_FAILURES):
            if since > high:
                low = high = self._current(prefix)
            if not low <= since <= high:
                return high
            watch = self._watch(prefix, since)
            found = self._follow(watch, since, deadline)
            if found is not None:
                return found
            low = high = self._current(prefix)  # signs in anew if need be, or raises what is wrong
            if watch.denied:
                self._end(self._stream, "a new token is used")
        if watch.denied:
            raise Denied(f"etcd denied a watch of {prefix!r} ({watch.ended})")
        raise unreachable(str(self._client.address), watch.ended)

    def close(self) -> None:
        """End every wait. Idempotent."""
        with self._lock:
            self._closed = True
        self._end(self._stream, "the connection to etcd is closed")

    def _current(self, prefix: str) -> int:
        """The store's revision now, asked in a way that whoever may watch the prefix is allowed."""
        epoch = self._client.epoch
        key, _ = messages.span(prefix)
        request = messages.range_request(key, keys_only=True)
        page = self._client.call(messages.RANGE, request, messages.range_answer)
        self._client.note(epoch, page.revision)
        return int(page.revision)

    def _watch(self, prefix: str, since: int) -> _Watch:
        """The watch of a prefix, begun after ``since`` if there was none. It counts as waited on."""
        while True:
            stream = self._open()
            with self._lock:
                if self._closed:
                    raise Unavailable("the connection to etcd is closed")
                if stream.ended:
                    continue
                watch = self._watches.get(prefix)
                if watch is None:
                    self._last_id += 1
                    watch = _Watch(prefix, since, threading.Condition(self._lock), since)
                    self._watches[prefix] = stream.watches[self._last_id] = watch
                    stream.requests.put(messages.watch_request(self._last_id, prefix, since + 1))
                watch.waiting += 1
                return watch

    def _follow(self, watch: _Watch, since: int, deadline: float) -> int | None:
        """What ``wait`` returns, or None if the watch ended before there was anything to tell."""
        with self._lock:
            try:
                while True:
                    if watch.changed > since:
                        return watch.changed
                    if watch.ended:
                        return None
                    left = deadline - time.monotonic()
                    if left <= 0 or since < watch.start:
                        return max(since, watch.known)
                    watch.told.wait(left)
            finally:
                watch.waiting -= 1
                self._trim()

    def _trim(self) -> None:
        """Cancel the oldest watch that nobody waits on, if there are too many."""
        stream = self._stream
        if stream is None or len(stream.watches) <= KEPT:
            return
        idle = [number for number, watch in stream.watches.items() if not watch.waiting]
        if len(idle) > KEPT:
            watch = stream.watches.pop(idle[0])
            self._watches.pop(watch.prefix, None)
            stream.requests.put(messages.unwatch_request(idle[0]))

    # --- the stream

    def _open(self) -> _Stream:
        """The stream that is open, opened now if there is none."""
        with self._opening:
            stream = self._stream
            if stream is not None:
                return stream
            requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            member, call = self._client.stream(messages.WATCH, iter(requests.get, None))
            stream = _Stream(member, call, requests)
            with self._lock:
                self._stream = stream
        threading.Thread(target=self._listen, args=(stream,), name="etcd watches", daemon=True).start()
        return stream

    def _listen(self, stream: _Stream) -> None:
        reason = "it ended the watches"
        try:
            for answer in stream.call:
                self._take(stream, messages.watch_answer(answer))
        except RpcError as error:
            reason = reason_of(error, 0)
        except ValueError:
            reason = "what it says of watches makes no sense"
        if not stream.ended:
            self._client.drop(stream.member)  # before the waits look again: the server may be another one
        self._end(stream, reason)

    def _take(self, stream: _Stream, answer: messages.WatchAnswer) -> None:
        with self._lock:
            watch = stream.watches.get(answer.id)
            if watch is None:
                return
            if answer.compacted:
                watch.changed = max(answer.revision, answer.compacted)
                watch.ended = "its revisions were compacted"
            elif answer.canceled:
                watch.ended, watch.denied = answer.reason or "etcd ended it", "denied" in answer.reason
            elif answer.created:
                if answer.revision < watch.start:  # wiped or restored: it would be silent from now on
                    watch.ended = "etcd is behind the revision that was seen"
            elif answer.changed:
                watch.changed = watch.known = max(watch.changed, answer.revision)
            else:
                watch.known = max(watch.known, answer.revision)
            if watch.ended:
                del stream.watches[answer.id]
                self._watches.pop(watch.prefix, None)
            watch.told.notify_all()

    def _leave(self, member: Member) -> None:
        """The client has given up on a member, and there are others."""
        stream = self._stream
        if stream is not None and stream.member is member:
            self._end(stream, f"{member.target} was given up")

    def _end(self, stream: _Stream | None, reason: str) -> None:
        if stream is None:
            return
        with self._lock:
            if stream.ended:
                return
            stream.ended = reason
            if self._stream is stream:
                self._stream = None
            for watch in stream.watches.values():
                watch.ended = reason
                self._watches.pop(watch.prefix, None)
                watch.told.notify_all()
            stream.watches.clear()
        stream.requests.put(None)
        stream.call.cancel()
