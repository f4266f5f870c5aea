"""One thread per store that looks at the change counter, for all waits, and does the chores between two looks."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sked_core.plugin import SkedError, Unavailable
from sked_dynamodb.client import Client, log
from sked_dynamodb.records import CHANGES_KEPT, EMPTY, Change, Head
from sked_dynamodb.snapshots import changes_from

LONGEST_PAUSE_SECONDS = 5.0


class Feed:
    """What has changed, as far as it was seen: the last commit, and the keys of those before it.

    The thread starts with the first use, looks at the counter only while somebody waits, at most once per poll
    interval, and less often while DynamoDB does not answer.
    """

    def __init__(self, client: Client, chores: Sequence[Callable[[], None]], *, every: float) -> None:
        self._client, self._chores, self._every = client, chores, every
        self._changed = threading.Condition()
        self._head: Head | None = None
        self._changes: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._floor = 0  # before it nothing is remembered
        self._marks: dict[int, str] = {}  # of the commits that this process read or made
        self._life = 0  # raised when the table was wiped or set back
        self._begun = self._ended = 0  # looks
        self._failure: SkedError | None = None  # of the last look
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="dynamodb", daemon=True)
                self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def made(self, head: Head, change: Change) -> None:
        """Take in a commit of this process: its waits need not wait for the next look."""
        self.saw(head)
        with self._changed:
            if self._head is not None and self._head.revision + 1 == head.revision:
                self._take(head, [change])

    def saw(self, head: Head) -> None:
        """Note a commit that was read or made: a wait from its revision on means it, and no namesake."""
        with self._changed:
            if len(self._marks) >= CHANGES_KEPT:
                self._marks.clear()
            self._marks[head.revision] = head.mark

    def wait(self, prefix: str, since: int, timeout: float) -> int:
        """As Store.wait. Raises the look's error if one fails meanwhile, Unavailable once closed."""
        deadline = time.monotonic() + timeout
        self.start()
        with self._changed:
            if self._closed:
                raise Unavailable("this client of DynamoDB was closed")
            life, looks, ended = self._life, self._begun, self._ended
            self._waiting += 1
            self._changed.notify_all()
            try:
                while True:
                    head = self._head
                    if head is not None:
                        if life != self._life or (since > head.revision and self._ended > looks):
                            return head.revision
                        if since <= head.revision and self._is_namesake(since):
                            return head.revision
                        if since < head.revision:
                            if self._touched(prefix, since):
                                return head.revision
                            since = head.revision
                    if self._failure is not None and self._ended > ended:
                        raise type(self._failure)(str(self._failure), hint=self._failure.hint)
                    left = deadline - time.monotonic()
                    if left <= 0 or self._closed:
                        return since
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _is_namesake(self, since: int) -> bool:
        """Whether the commit of this revision is another one than was read, in another life of the table."""
        mark = self._marks.get(since)
        if mark is None or self._head is None:
            return False
        known: Iterable[Head | Change] = (self._head, *self._changes)
        return any(each.revision == since and each.mark != mark for each in known)

    def _touched(self, prefix: str, since: int) -> bool:
        if since < self._floor:
            return True
        for change in reversed(self._changes):
            if change.revision <= since:
                return False
            if any(key.startswith(prefix) for key in change.keys):
                return True
        return False

    def _take(self, head: Head, changes: Sequence[Change]) -> None:
        self._changes.extend(changes)
        if len(self._changes) == self._changes.maxlen:
            self._floor = max(self._floor, self._changes[0].revision - 1)
        self._head = head
        self._changed.notify_all()

    def _forget(self, head: Head, *, other_life: bool) -> None:
        self._changes.clear()
        self._floor, self._head = head.revision, head
        self._life += other_life
        self._changed.notify_all()

    # --- the thread

    def _run(self) -> None:
        look_due, chores_due, pause = 0.0, time.monotonic() + self._every, self._client.address.poll
        while True:
            with self._changed:
                while not self._closed:
                    due = min(look_due, chores_due) if self._waiting else chores_due
                    left = due - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                if self._closed:
                    return
                looking = bool(self._waiting) and time.monotonic() >= look_due
            if looking:
                look_due = time.monotonic() + pause
                pause = self._look(pause)
                look_due = max(look_due, time.monotonic() + (pause if self._failure else 0))
            if time.monotonic() >= chores_due:
                for chore in self._chores:
                    chore()
                chores_due = time.monotonic() + self._every * random.uniform(0.9, 1)  # noqa: S311 - no secret

    def _look(self, pause: float) -> float:
        """One look; returns how long to pause after it."""
        with self._changed:
            self._begun += 1
            begun = self._begun
        failure: SkedError | None = None
        try:
            self._advance()
        except SkedError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a thread that dies would leave its waits asleep
            log.exception("looking for changes failed")
            failure = Unavailable(f"looking for changes failed: {error!r:.200}")
        with self._changed:
            self._ended, self._failure = begun, failure
            self._changed.notify_all()
        poll = self._client.address.poll
        if failure is None:
            return poll
        return min(max(pause, poll) * random.uniform(1.2, 2), LONGEST_PAUSE_SECONDS)  # noqa: S311 - no secret

    def _advance(self) -> None:
        now = self._client.head()
        with self._changed:
            known = self._head
            if known is None:
                return self._forget(now, other_life=False)
            if now == known:
                return None
        # From the known one on, itself included: its mark shows whether this is still the life that was known.
        changes = changes_from(self._client, known.revision) if now.revision > known.revision else []
        with self._changed:
            known = self._head or EMPTY
            if now.revision <= known.revision and self._made_meanwhile(now):
                return None
            fresh = [change for change in changes if change.revision > known.revision]
            same = [change.mark for change in changes if change.revision == known.revision]
            joined = not fresh or fresh[0].revision == known.revision + 1
            if now.revision > known.revision and joined and (known == EMPTY or same == [known.mark]):
                if fresh:
                    self._take(Head(fresh[-1].revision, fresh[-1].mark), fresh)
                return None
            # Either far behind (the changes between are trimmed), or the table is not what it was.
            trimmed = now.revision > known.revision and not same
            return self._forget(now, other_life=not trimmed)

    def _made_meanwhile(self, now: Head) -> bool:
        """Whether ``now`` was overtaken by commits of this process while it was being read."""
        return any(change.revision == now.revision and change.mark == now.mark for change in self._changes)
