"""That this host is here and what it has: its record, and the liveness key that is bound to the agent's lease."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from sked_core.clock import Clock
from sked_core.errors import Conflict, InvalidValue, LeaseLost, SkedError
from sked_core.interfaces.store import Check, Lease, Put, Revision, Store, entry_at
from sked_core.model import codec, keys
from sked_core.model.types import Host, Liveness
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.pulse import Pulse

log = logging.getLogger("sked.agent")
PUBLISH_SECONDS = 10.0
TAKEOVER_SECONDS = 45.0
"""How long another agent of the same name is waited for: longer than a dead one's lease can last (2 x 15 s)."""


class HostPresence:
    """Announces one host. ``describe`` makes the record that is published whenever it differs from the last one."""

    def __init__(
        self,
        store: Store,
        *,
        host: str,
        agent: str,
        describe: Callable[[], Host],
        clock: Clock,
        keeper: LeaseKeeper,
        ready: Callable[[], None],
    ) -> None:
        self._store, self._host, self._agent, self._describe = store, host, agent, describe
        self._clock, self._ready = clock, ready
        self._keeper = keeper
        keeper.missed = self.publish_soon  # whoever was cut off is to be seen again before it is taken for lost
        self.pulse = Pulse(clock)
        self._published: Host | None = None
        self.wanted = threading.Event()
        """Set to have the next round now."""
        self._usurped_since: float | None = None
        self.held = False
        """Whether the liveness key was this agent's at least once: before, it starts and stops nothing."""
        self.usurper = ""
        """The id of the agent that has held this host's name for too long, if so."""
        self.paused = threading.Event()
        """Set while the store is a stranger's, or not known to be the right one yet: nothing is announced to it."""
        self.paused.set()

    def start(self, stop: threading.Event) -> list[threading.Thread]:
        """Announce until ``stop`` is set, then give the lease back. Returns the threads to join."""
        thread = threading.Thread(target=self._run, args=(stop,), name="presence", daemon=True)
        thread.start()
        return [self._keeper.serve(stop), thread]

    def publish_soon(self) -> None:
        """Publish what has changed now rather than at the next round."""
        self.wanted.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.pulse.begin()
            try:
                self.announce()
            except Exception as error:  # noqa: BLE001 - the next round may do better
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "not announced: %s", error)
            self.pulse.rest(PUBLISH_SECONDS)
            self.wanted.wait(PUBLISH_SECONDS)
            self.wanted.clear()

    def announce(self) -> None:
        """One round, unless it is paused: hold the liveness key, publish the record if it changed. Raises Unavailable,
        LeaseLost."""
        if self.paused.is_set():
            return
        published, self._published = self._published, None  # after a failure it is not known what the store holds
        try:
            lease = self._keeper.lease()
        except LeaseLost:  # one that can't be proven may yet be renewed: it is not dropped for another beside it
            self._keeper.renew_if_due()
            lease = self._keeper.lease()
        try:
            self._hold(lease)
        except LeaseLost:
            self._keeper.drop()
            raise
        self.pulse.go_on()
        if not self.held or self.usurper:
            return
        host = self._describe()
        if host != published:
            self._store.commit([Put(keys.host(self._host), self._record(host))])
        self._published = host

    def _record(self, host: Host) -> bytes:
        """The record with fields that others added to it kept."""
        key = keys.host(self._host)
        entry = entry_at(self._store, key)
        if entry is not None:
            try:
                return codec.patch(entry.value, **msgspec.to_builtins(host))
            except InvalidValue as error:
                log.warning("%s is replaced: %s", key, error)
        return codec.encode(host)

    def _hold(self, lease: Lease) -> None:
        key = keys.live(self._host)
        entry = entry_at(self._store, key)
        if entry is not None and entry.lease == lease.id:
            self._now_held()  # also where the answer to the commit that wrote it was lost
            return
        if entry is not None and not self._is_mine(entry.value):
            self._wait_for_usurper(entry.value)
            return
        revision = entry.revision if entry is not None else Revision(0)
        try:
            self._store.commit([Check(key, revision), Put(key, codec.encode(Liveness(self._agent)), lease)])
        except Conflict:
            self.wanted.set()
            return
        self._now_held()

    def _now_held(self) -> None:
        self._usurped_since, self.usurper = None, ""
        if not self.held:
            self.held = True
            self._ready()

    def _is_mine(self, value: bytes) -> bool:
        try:
            return codec.decode(value, Liveness).agent == self._agent
        except InvalidValue:
            return True  # garbage that an operator wrote keeps nobody out

    def _wait_for_usurper(self, value: bytes) -> None:
        now = self._clock.monotonic()
        if self._usurped_since is None:
            self._usurped_since = now
            log.warning("another agent calls itself %s; waiting for it to go", self._host)
        elif now - self._usurped_since > TAKEOVER_SECONDS:
            self.usurper = codec.decode(value, Liveness).agent
            self._ready()
