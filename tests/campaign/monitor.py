"""Looks at everything five times a second, and keeps what it saw, with what the row says it did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from campaign.judge import Judge, Violation
from campaign.looking import EngineEyes, ProcEyes, StoreEyes, alive, sockets
from campaign.samples import Instance, Note, Sample

INTERVAL_SECONDS = 0.2
SOCKETS_EVERY = 5
KEPT = 600
"""So many samples are kept, for who reads of a violation."""


class Monitor:
    """A thread of its own while the block runs. ``living``: Sked's processes by name, with their pids.

    The order within one sample matters: what runs is looked at before the store, so that the store shows the reason
    of whatever was seen to have ended."""

    def __init__(
        self, url: str, engine: str, ending: str, living: Callable[[], Mapping[str, int]], judge: Judge
    ) -> None:
        self._store, self._engine = StoreEyes(url), EngineEyes(engine, ending)
        self._proc, self._living, self.judge = ProcEyes(ending), living, judge
        self._port = int(url.rpartition(":")[2])
        self._mutex, self._done = threading.Lock(), threading.Event()
        self._notes: list[Note] = []
        self._innocents: set[tuple[int, int]] = set()
        self._before: tuple[set[Instance], set[Instance], set[str]] = (set(), set(), set())
        self._connections: tuple[dict[str, int], frozenset[int]] = ({}, frozenset())
        self._leases: tuple[int | None, dict[str, float]] = (None, {})
        self.violations: list[Violation] = []
        self.history: list[Sample] = []
        self.looks, self.longest = 0, 0.0
        self.failure: Exception | None = None
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def note(self, what: str, subject: str = "") -> float:
        """Say something, before it is done; returns when (monotonic)."""
        now = time.monotonic()
        with self._mutex:
            self._notes.append(Note(now, what, subject))
            if what == "innocent":
                pid, started = subject.split()
                self._innocents.add((int(pid), int(started)))
        return now

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(30)

    def look_again(self) -> Sample:
        """Wait for a sample that was begun after this call."""
        with self._seen:
            wanted = self.looks + 2
            if not self._seen.wait_for(lambda: self.looks >= wanted or self.failure is not None, 60):
                raise AssertionError("the monitor hangs")
        if self.failure is not None:
            raise self.failure
        return self.history[-1]

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._done.is_set():
                began = time.monotonic()
                sample = self._look(began)
                self.violations.extend(self.judge.look(sample))
                self.longest = max(self.longest, time.monotonic() - began)
                with self._seen:
                    self.looks += 1
                    self.history = [*self.history[-KEPT:], sample] if self.looks % 100 == 0 else self.history
                    if not self.history or self.history[-1] is not sample:
                        self.history.append(sample)
                    self._seen.notify_all()
                due = max(due + INTERVAL_SECONDS, time.monotonic())
                self._done.wait(max(0.02, due - time.monotonic()))
        except Exception as error:
            self.failure = error
            with self._seen:
                self._seen.notify_all()

    def _look(self, now: float) -> Sample:
        processes = dict(self._living())
        marked = self._proc.look()
        engine = self._engine.look()
        self._before = engine or self._before
        told = self._store.read()
        fresh = self.looks % SOCKETS_EVERY == 0
        if fresh:
            self._connections = sockets(processes, self._port)
            late = time.monotonic() - now
            count, ages = (told and self._store.leases()) or (None, {})
            self._leases = count, {lease: age - late for lease, age in ages.items()}
        with self._mutex:
            # Said until the look ended: who acts says so first, so what came of it is never seen without its reason.
            notes, self._notes = tuple(self._notes), []
            innocents = set(self._innocents)
        sample = Sample(
            at=now,
            store=None,
            leases=self._leases[0],
            lease_ages=self._leases[1] if fresh else {},
            instances=frozenset({*marked, *self._before[0]}),
            ended=frozenset(self._before[1]),
            containers=frozenset(self._before[2]),
            engine=engine is not None,
            processes=processes,
            connections=self._connections[0],
            listening=self._connections[1],
            innocents=alive(innocents),
            notes=notes,
            fresh=fresh,
        )
        return replace(sample, store=told[0], revision=told[1]) if told else sample
