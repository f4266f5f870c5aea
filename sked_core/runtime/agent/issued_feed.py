"""What is issued to one host, read by a thread of its own so that a slow store never keeps an agent from its tasks.

Nothing is taken for an order unless it comes from the very store that this agent's tasks came from: each read is
followed by one of the store's id, which is pinned on the host's disk (reliability.md A1, F13, F15). Nor from an older
state of it (F14): changes are counted in the store and on the disk, and a store that counts fewer has been set back.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from sked_core.clock import Clock
from sked_core.errors import Conflict, Denied, InvalidValue, StoreChanged
from sked_core.interfaces.store import Check, Entry, Put, Revision, Store, entry_at
from sked_core.logic import backoff
from sked_core.logic.lifecycle import BRAKE_COUNT, BRAKE_SECONDS, shutdown_delay
from sked_core.model import codec, duration, keys
from sked_core.model.types import Task, TaskId
from sked_core.runtime.agent.disk import AgentDisk, Seen
from sked_core.runtime.loop import MIN_INTERVAL_SECONDS, WAIT_SECONDS
from sked_core.runtime.ownership import Ownership
from sked_core.runtime.pulse import Pulse
from sked_core.runtime.state import decode_task, marker, store_uid

log = logging.getLogger("sked.agent")
CONFIRM_SECONDS = 3.0
CONFIRM_READS = 1 + int(BRAKE_SECONDS / CONFIRM_SECONDS)
"""How often, and how soon, what is issued is read again where the last read is not simply to be believed."""


@dataclass(frozen=True, slots=True)
class Record:
    """A task that is issued to this host, with what follows from its JSON."""

    task: Task
    raw: bytes
    revision: Revision
    digest: str
    grace: float


@dataclass(frozen=True, slots=True)
class Issue:
    """One authoritative read. ``faults``: ids whose records are no valid tasks of this host, with the reason."""

    records: Mapping[TaskId, Record] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


class IssuedFeed:
    """Hands every change of what is issued to ``deliver``: an Issue, or StoreChanged while the store is a stranger.

    ``start`` begins reading in a thread; ``read_and_deliver`` is what the thread repeats.
    """

    def __init__(
        self,
        store: Store,
        host: str,
        disk: AgentDisk,
        deliver: Callable[[Issue | StoreChanged], None],
        *,
        clock: Clock,
        accept: bool,
    ) -> None:
        self._store, self._host, self._disk, self._deliver, self._accept = store, host, disk, deliver, accept
        self._prefix = keys.host_tasks(host)
        self._decoded: dict[str, Record] = {}
        self._confirm = CONFIRM_READS
        """How many reads are to follow soon: at the start, when it shows what runs here, and after many vanished."""
        self._ownership = Ownership(store, host, clock)
        self._clock, self._read_at = clock, float("-inf")
        self.pulse = Pulse(clock)
        self._counted, self._counted_at = 0, Revision(0)

    def start(self, stop: threading.Event) -> None:
        """Read now and after each change until ``stop`` is set, through outages of any length."""
        threading.Thread(target=self._run, args=(stop,), name="issued", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        failures = 0
        while not stop.is_set():
            self.pulse.begin()
            try:
                since, soon = self.read_and_deliver()
                if failures:
                    log.info("the store answers again")
                failures = 0
                wait = CONFIRM_SECONDS if soon else WAIT_SECONDS
                self.pulse.rest(wait)
                self._store.wait(self._prefix, since, wait)
                stop.wait(MIN_INTERVAL_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, an agent that stays deaf is worse
                if not failures:
                    log.warning("%s; tasks go on running, retrying", error)
                failures += 1
                pause = backoff.delay(failures, self._host, base=0.2, cap=5.0)
                self.pulse.rest(pause)
                stop.wait(pause)

    def age(self) -> float | None:
        """Seconds since the store last told what is issued here; None if it never did."""
        return None if self._read_at == float("-inf") else self._clock.monotonic() - self._read_at

    def read_and_deliver(self) -> tuple[Revision, bool]:
        """One round. Returns the revision to wait from, and whether to read again in CONFIRM_SECONDS at the latest.
        Raises what the store raises."""
        issue, revision = self.read()
        self._read_at = self._clock.monotonic()
        self._deliver(issue)
        # A stranger is looked at again soon: it may be the right store before its data was restored.
        return revision, not isinstance(issue, Issue) or self._confirm > 0

    def read(self) -> tuple[Issue | StoreChanged, Revision]:
        """One authoritative read, and the revision to wait from. Raises Unavailable."""
        snapshot = self._store.read(self._prefix)
        self.pulse.go_on()
        # Id and count are read after the tasks: had the store been wiped or set back before them, they would show it.
        try:
            if self._check_identity():
                return self.read()  # what was read before lacks what has been written back
        except StoreChanged as error:
            return error, snapshot.revision
        self.pulse.go_on()
        self._count_change(snapshot.entries)
        return self._decode(self._ownership.settle(snapshot.entries)), snapshot.revision

    def _check_identity(self) -> bool:
        """Whether this agent has turned to another store, or an older state of it, and written there what it lacked.
        Raises StoreChanged where that was not asked for."""
        pinned, seen = self._disk.identity().store_uid, self._disk.seen().count
        found = store_uid(self._store, create=not pinned or self._accept)
        count = self._read_count(seen)
        ours = found == pinned and found != ""
        if ours and count >= seen:
            self._accept = False
            return False
        if pinned and not self._accept:
            what = "empty: it came back without its data"
            if ours:
                what = f"set back to an older state (change {count} of this host, which is at {seen})"
            elif found:
                what = f"another one than before ({found}, was {pinned})"
            raise StoreChanged(
                f"the store is {what}; nothing is started or stopped on this host until that is settled",
                stranger=not ours,
                hint="restore its data, or accept it as it is and write this host's tasks into it:\n"
                "  sked run agent --accept-store",
            )
        if self._accept:
            self._refill()  # before the store is called ours: cut short, it is done again
        if count < seen:
            self._count("")
        self._accept = False
        self._disk.pin(found)
        log.info("this host now belongs to store %s", found)
        return True

    def _read_count(self, seen: int) -> int:
        """How many changes the store says were taken in here; ``seen`` where it holds garbage, which proves nothing."""
        entry = entry_at(self._store, keys.agent(self._host)) or Entry(b"0", Revision(0))
        self._counted = int(entry.value) if entry.value.isdigit() and len(entry.value) < 16 else seen
        self._counted_at = entry.revision
        return self._counted

    def _count_change(self, entries: Mapping[str, Entry]) -> None:
        """Count what is issued if it is not what was counted last."""
        parts = (f"{key} {len(entry.value)} ".encode() + entry.value for key, entry in sorted(entries.items()))
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        if digest != self._disk.seen().digest:
            try:
                self._count(digest)
            except Denied as error:
                log.warning("%s: this host can't tell when the store is set back", error)

    def _count(self, digest: str) -> None:
        """Count one more: in the store first, which may be ahead of the disk after a crash, and never behind it.

        Raises Conflict if the store was set back since ``_read_count``.
        """
        key, seen = keys.agent(self._host), Seen(count=1 + max(self._disk.seen().count, self._counted), digest=digest)
        self._store.commit([Check(key, self._counted_at), Put(key, b"%d" % seen.count)])
        self._disk.note_seen(seen)

    def _refill(self) -> None:
        """Write the tasks that this host remembers into a store that has lost them."""
        for task_id, note in self._disk.notes().items():
            if note.gone:
                continue
            named = {"task": task_id, "service": note.task.service}
            try:
                value = codec.encode(note.task)
            except InvalidValue as error:
                log.error("%s can't be written back: %s", task_id, error, extra=named)
                continue
            both = (keys.task(task_id), keys.host_task(self._host, task_id))
            try:
                absent, puts = [Check(key, Revision(0)) for key in both], [Put(key, value) for key in both]
                self._store.commit([*absent, *puts, marker(note.task.service, self._host)])
                log.info("wrote %s back into the store", task_id, extra=named)
            except Conflict:
                log.info("%s stands in the store already", task_id, extra=named)

    def _decode(self, entries: Mapping[str, Entry]) -> Issue:
        records: dict[TaskId, Record] = {}
        faults: dict[str, str] = {}
        for key, entry in entries.items():
            name = key.removeprefix(self._prefix)
            try:
                keys.check_task_id(name)
                record = self._record(key, entry)
                records[record.task.id] = record
            except InvalidValue as error:
                faults[name] = str(error)
        # Many that vanished at once are stopped only when later reads confirm it (lifecycle.held_back).
        vanished = len(self._decoded.keys() - records.keys())
        self._confirm = CONFIRM_READS if vanished > BRAKE_COUNT else max(0, self._confirm - 1)
        self._decoded = {str(task_id): record for task_id, record in records.items()}
        return Issue(records, faults)

    def _record(self, key: str, entry: Entry) -> Record:
        known = self._decoded.get(keys.last_segment(key))
        if known is not None and known.revision == entry.revision and known.raw == entry.value:
            return known
        task = decode_task(key, entry, self._host).task
        if not task.host:  # written by hand: the key says it
            task = msgspec.structs.replace(task, host=self._host)
        shutdown_delay(task)  # raises for one that is none
        return Record(
            task=task,
            raw=entry.value,
            revision=entry.revision,
            digest=codec.digest(task),
            grace=duration.to_seconds(task.task_definition.grace_period),
        )
