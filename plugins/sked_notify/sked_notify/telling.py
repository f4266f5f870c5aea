"""Hands events to hooks: a thread for each, so that one that hangs holds up no other, and nothing holds up Sked."""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
from collections.abc import Callable

from sked_core.plugin import Event, SkedError, to_seconds
from sked_notify.config import Config, Hook, load
from sked_notify.messages import Gathered, message
from sked_notify.posting import Outcome, post

log = logging.getLogger("sked.notify")
GATHER_SECONDS = 0.5
"""Before the first message: what happens together is told together."""
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
END_SECONDS = 5.0
"""How long the end of a process waits for what is left to be told."""
Post = Callable[[Hook, bytes, str], Outcome]


class Teller:
    """Tells one hook, in a thread that begins with the first event."""

    def __init__(self, config: Config, hook: Hook, post: Post = post) -> None:
        self._config, self._hook, self._post = config, hook, post
        self._gathered, self._lost = Gathered(), 0
        self._changed = threading.Condition()
        self._closing = self._failing = False
        self._thread: threading.Thread | None = None

    def add(self, event: Event) -> None:
        """Take the event in; never waits for the hook."""
        if not self._hook.wants(event):
            return
        with self._changed:
            if self._closing:
                return
            self._gathered.add(event)
            if self._thread is None:
                name = f"sked-notify-{self._hook.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Have what is left told at once, with one more try; ``join`` waits for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the end; what is not told by then never is, and the log says so."""
        if self._thread is None:
            return
        self._thread.join(max(timeout, 0.0))
        if self._thread.is_alive():
            log.warning("notify %s: this process ends before it took its last message", self._hook.name)

    def _run(self) -> None:
        ready = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._gathered or self._closing)
                if not self._gathered:
                    return
                # Further events wait with those that are there: a crash loop is a message now and then.
                self._changed.wait_for(lambda: self._closing, max(ready - time.monotonic(), GATHER_SECONDS))
                gathered, self._gathered = self._gathered, Gathered()
                gathered.lost = self._lost
            self._deliver(gathered)
            ready = time.monotonic() + to_seconds(self._hook.group)

    def _deliver(self, gathered: Gathered) -> None:
        body, kind = message(self._config, self._hook, gathered)
        outcome, last = Outcome(), False
        for tried in range(TRIES):
            outcome = self._post(self._hook, body, kind)
            if not outcome.why:
                self._lost = 0
                if self._failing:
                    log.info("notify %s: it takes messages again", self._hook.name)
                self._failing = False
                return
            if last or not outcome.again:
                break
            last = self._pause(tried, outcome.after)
        self._lost += gathered.count
        if not self._failing or self._closing:
            log.warning("notify %s: %s; events not told: %s", self._hook.name, outcome.why, self._lost)
        self._failing = True

    def _pause(self, tried: int, asked: float) -> bool:
        """Wait before the next try; true if that is the last one, since the process ends."""
        pause = min(FIRST_PAUSE * 2**tried, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311  spreads tries
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, max(pause, asked))


class Tellers:
    """All hooks of a file."""

    def __init__(self, config: Config, post: Post = post) -> None:
        self._tellers = [Teller(config, hook, post) for hook in config.hooks]

    def add(self, event: Event) -> None:
        for teller in self._tellers:
            teller.add(event)

    def close(self, seconds: float = END_SECONDS) -> None:
        """Have all that is left told, for so long at most. Idempotent."""
        deadline = time.monotonic() + seconds
        for teller in self._tellers:
            teller.close()
        for teller in self._tellers:
            teller.join(deadline - time.monotonic())


_mutex = threading.Lock()
_known: Tellers | SkedError | None = None


def tell(event: Event) -> None:
    """Tell the hooks of this process's file, which is read at the first event. Raises the same SkedError each time if
    the file can't be."""
    global _known
    with _mutex:
        if _known is None:
            try:
                _known = Tellers(load())
                # There is no hook for the end of a process; daemon threads still run when this is called.
                atexit.register(_known.close)
            except SkedError as error:
                _known = error
        known = _known
    if isinstance(known, SkedError):
        raise known
    known.add(event)
