"""What all requests of one server share: the store, the copy of its state, and documents made from that."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sked_core.client.copied.mirror import Mirror
from sked_core.client.copied.picture import Picture, PictureSession, session_of
from sked_core.client.session import Session
from sked_web.packed import packed

SETTLE_SECONDS = 2.0
"""How long an answer to a change waits until later reads show it."""
KEPT_DOCUMENTS = 512
KEPT_BYTES = 64 * 1024 * 1024
LONGEST_REUSE = 3.0
"""Seconds for which a document is served again at most although the state has changed since: twice as long as making
it took, so that many who look at a busy store cost no more than one."""


@dataclass(frozen=True, slots=True)
class Document:
    """A body that was made from a picture. ``tag``: names the state that it rests on; ``etag``: the body itself;
    ``number``: of the picture."""

    body: bytes
    tag: str
    etag: str
    number: int
    until: float = 0.0
    _packed: list[bytes] = field(default_factory=list)

    def packed(self) -> bytes:
        """The body in gzip, made for the first one who takes it so."""
        if not self._packed:
            self._packed.append(packed(self.body))
        return self._packed[0]


class Documents:
    """Bodies by what was asked, within a bound. Any number of threads may ask; each body is made by one at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Document] = OrderedDict()
        self._size = 0
        self._making: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._floor = 0

    def outdate(self, number: int) -> None:
        """Serve nothing again that is older than the picture of this number."""
        self._floor = max(self._floor, number)

    def known(self, name: str, tag: str) -> Document | None:
        """The document of this name that is made of the state ``tag``, or of one a moment ago."""
        with self._guard:
            found = self._known.get(name)
            if found is not None:
                self._known.move_to_end(name)
        if found is None or found.tag == tag:
            return found
        return found if time.monotonic() < found.until and found.number >= self._floor else None

    def made(self, name: str, tag: str, make: Callable[[], Document]) -> Document:
        """The same, made now where there is none."""
        with self._guard:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            found = self.known(name, tag)
            if found is not None:
                return found
            begun = time.monotonic()
            made = make()
            ended = time.monotonic()
            made = replace(made, until=ended + min(2 * (ended - begun), LONGEST_REUSE))
            self._keep(name, made)
            return made

    def _keep(self, name: str, made: Document) -> None:
        with self._guard:
            before = self._known.pop(name, None)
            self._size += len(made.body) - (len(before.body) if before else 0)
            self._known[name] = made
            while len(self._known) > KEPT_DOCUMENTS or (self._size > KEPT_BYTES and len(self._known) > 1):
                _, oldest = self._known.popitem(last=False)
                self._size -= len(oldest.body)
            if len(self._making) > 2 * KEPT_DOCUMENTS:
                self._making.clear()


@dataclass(slots=True)
class State:
    """``sked``: the store; ``mirror``: the copy of what it holds."""

    sked: Session
    mirror: Mirror
    documents: Documents = field(default_factory=Documents)

    def look(self) -> Picture:
        """The state as it was read last. Raises Unavailable before it was ever read."""
        return self.mirror.look()

    def seen(self, who: str = "") -> PictureSession:
        """A session for ``who`` that looks at the copy and writes to the store."""
        return session_of(self.sked, self.look(), who)

    def session(self, who: str = "") -> Session:
        """A session for ``who`` on the store itself, for what changes it."""
        return replace(self.sked, who=who or self.sked.who)

    def changed(self) -> None:
        """Call it after a change, in a thread: what is read from now on shows it."""
        self.mirror.settle(SETTLE_SECONDS)
        self.documents.outdate(self.mirror.look().number)
