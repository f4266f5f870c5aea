"""Waits over etcd's watches: one stream for each prefix that is waited on, all on the one connection.

A watch tells of changes from a revision on, whatever the prefix holds. It says nothing at all, for ever, from a
revision that lies in the future, which is where a wiped or restored store leaves its clients; and a broken stream may
come back to such a store, grown to the same revision meanwhile. So a watch is begun only from a revision that belongs
to the connection as it is now; the first wait on a prefix after a break is answered at once, to be read anew.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import Denied, Unavailable
from sked_etcd import messages
from sked_etcd.channel import Member, RpcError
from sked_etcd.client import Client
from sked_etcd.failures import reason_of, unreachable

KEPT = 4
"""Watches that nobody waits on, kept for the next wait on their prefix."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One watched prefix.

    ``start``: changes after this revision are seen. ``known``: all changes up to here have been told. ``changed``:
    the revision of the last one. ``ended``: why it tells no more; ``denied`` if for a lack of permission.
    """

    prefix: str
    member: Member
    call: Any
    start: int
    known: int
    told: threading.Condition
    changed: int = 0
    waiting: int = 0
    ended: str = ""
    denied: bool = False


class Watches:
    """``wait`` as the Store port has it, for any number of threads and prefixes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        self._met: dict[str, int] = {}  # prefix: the epoch in which the caller last got to know it
        self._committed = (0, 0)
        self._closed = False
        client.on_drop = self._leave

    def wait(self, prefix: str, since: int, timeout: float) -> int:
        """The revision to wait from next, once something may have changed or the time is over.

        Raises Unavailable and Denied.
        """
        deadline = time.monotonic() + timeout
        for _ in range(2):
            epoch = self._client.epoch
            found = self._elsewhere(prefix, since, epoch)
            if found is not None:
                return found
            watch = self._watch(prefix, since, epoch)
            found = self._follow(watch, since, deadline)
            if found is not None:
                self.note(prefix, epoch, found)
                return found
            if not watch.denied:
                raise unreachable(str(self._client.address), watch.ended)
            self._current(prefix)  # signs in anew if the token has expired, or says what is denied
        raise Denied(f"etcd denied a watch of {prefix!r} ({watch.ended})")

    def committed(self, epoch: int, revision: int) -> None:
        """Take down that the caller has made a commit, which it may wait from whatever the prefix."""
        self._client.note(epoch, revision)
        self._committed = (epoch, revision)

    def note(self, prefix: str, epoch: int, revision: int) -> None:
        """Take down that the caller knows the prefix as of ``revision``, from the connection of ``epoch``."""
        self._client.note(epoch, revision)
        with self._lock:
            if len(self._met) > 1000:  # prefixes that were read once; forgetting costs one more read
                self._met.clear()
            self._met[prefix] = epoch

    def close(self) -> None:
        """End every wait. Idempotent."""
        with self._lock:
            self._closed = True
            watches = list(self._watches.values())
        for watch in watches:
            self._end(watch, "the connection to etcd is closed")

    def _elsewhere(self, prefix: str, since: int, epoch: int) -> int | None:
        """The revision to go on from where ``since`` may be one of another store, or of this one before it was wiped
        or restored; None if it can be waited from."""
        low, high = self._client.revisions
        with self._lock:
            watch = self._watches.get(prefix)
            met = self._met.get(prefix) == epoch or self._committed == (epoch, since)
        if watch is not None and since >= watch.start:
            if since <= max(high, watch.known):
                return None
            current = self._current(prefix)
            return None if since <= current else current
        if met and low <= since <= high:
            return None
        current = self._current(prefix)
        if current == since:
            current -= 1  # the number alone does not tell that it is the same store: say that something is new
        self.note(prefix, epoch, current)
        return current

    def _current(self, prefix: str) -> int:
        """The store's revision now, asked in a way that whoever may watch the prefix is allowed."""
        key, _ = messages.span(prefix)
        request = messages.range_request(key, keys_only=True)
        return int(self._client.call(messages.RANGE, request, messages.range_answer).revision)

    def _watch(self, prefix: str, since: int, epoch: int) -> _Watch:
        """The watch of a prefix, begun after ``since`` if there was none. It counts as waited on."""
        with self._lock:
            watch = self._watches.get(prefix)
            if watch is not None:
                watch.waiting += 1
                return watch
        member, call = self._client.stream(messages.WATCH, messages.watch_request(prefix, since + 1))
        begun = _Watch(prefix, member, call, since, since, threading.Condition(self._lock))
        with self._lock:
            closed = self._closed
            watch = begun if closed else self._watches.setdefault(prefix, begun)
            watch.waiting += 1
        if closed or watch is not begun:  # another wait was faster
            begun.ended = "the connection to etcd is closed"
            call.cancel()
            return watch
        threading.Thread(target=self._listen, args=(watch,), name=f"etcd {prefix}", daemon=True).start()
        if self._client.epoch != epoch:
            self._end(watch, "the connection was lost")
        return watch

    def _follow(self, watch: _Watch, since: int, deadline: float) -> int | None:
        """What ``wait`` returns, or None if the watch ended before there was anything to tell."""
        with self._lock:
            try:
                while True:
                    if watch.changed > since:
                        return watch.changed
                    if self._closed:
                        raise Unavailable("the connection to etcd is closed")
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
        idle = [watch for watch in self._watches.values() if not watch.waiting]
        if len(idle) > KEPT:
            self._finish(idle[0], "nobody waited")

    def _listen(self, watch: _Watch) -> None:
        reason = "it ended the watch"
        try:
            for answer in watch.call:
                self._take(watch, messages.watch_answer(answer))
        except RpcError as error:
            reason = reason_of(error, 0)
        except ValueError:
            reason = "what it says of a watch makes no sense"
        if not watch.ended:
            self._client.drop(watch.member)  # before the waits look again: the server may be another one
        self._end(watch, reason)

    def _take(self, watch: _Watch, answer: messages.WatchAnswer) -> None:
        with self._lock:
            if answer.compacted:
                watch.changed = max(answer.revision, answer.compacted)
                self._finish(watch, "its revisions were compacted")
            elif answer.canceled:
                watch.denied = "denied" in answer.reason or "auth" in answer.reason
                self._finish(watch, answer.reason or "etcd ended it")
            elif answer.created:
                if answer.revision < watch.start:  # wiped or restored: it would be silent from now on
                    self._finish(watch, "etcd is behind the revision that was seen")
            elif answer.changed:
                watch.changed = watch.known = max(watch.changed, answer.revision)
                watch.told.notify_all()
            else:
                watch.known = max(watch.known, answer.revision)

    def _leave(self, member: Member) -> None:
        """The client has given up on a member, and there are others."""
        with self._lock:
            watches = [watch for watch in self._watches.values() if watch.member is member]
        for watch in watches:
            self._end(watch, f"{member.target} was given up")

    def _end(self, watch: _Watch, reason: str) -> None:
        with self._lock:
            self._finish(watch, reason)

    def _finish(self, watch: _Watch, reason: str) -> None:
        """With the lock held."""
        if not watch.ended:
            watch.ended = reason
            if self._watches.get(watch.prefix) is watch:
                del self._watches[watch.prefix]
            watch.told.notify_all()
            watch.call.cancel()
