"""The scheduler process: know what is, decide purely, commit under the service's lock, wait for a change.

Any number of these run at once. They divide the services among them (logic.turns); the lock of a service makes sure
that only one works on it, and every commit carries the lock's fence, so a scheduler that was paused or cut off can't
write any more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from sked_core.clock import Clock
from sked_core.errors import LeaseLost, SkedError, Unavailable
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.store import Store
from sked_core.logic import backoff
from sked_core.logic.presence import Absences, Drains, Rejections
from sked_core.logic.turns import TURN_SECONDS, rank
from sked_core.model import keys
from sked_core.runtime.container_ports import ContainerPorts
from sked_core.runtime.journal import Journal, Observer
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.loop import Watcher, call_when_set
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.pulse import Pulse
from sked_core.runtime.scheduling.announced import Announced
from sked_core.runtime.scheduling.evaluation import RETRY_SECONDS, SOON_SECONDS, Evaluator
from sked_core.runtime.scheduling.feed import SchedulerFeed
from sked_core.runtime.scheduling.figures import SchedulerFigures, of_scheduler
from sked_core.runtime.scheduling.rollout_moves import RolloutMoves
from sked_core.runtime.scheduling.service_moves import ServiceMoves
from sked_core.runtime.scheduling.shadowing import Shadowing
from sked_core.runtime.scheduling.view import Changes, View
from sked_core.runtime.state import store_uid
from sked_core.runtime.stores.yielding_store import YieldingStore

if TYPE_CHECKING:
    from sked_core.runtime.signing import Signer

log = logging.getLogger("sked.scheduler")
DEFAULT_LOST_AFTER_SECONDS = 60.0
DEFAULT_SCHEDULER = "default"
"""Every process has this one."""
TRIM_SECONDS = 60.0
"""Between two looks for events that are too many."""
FIGURES_SECONDS = 5.0
"""How long whoever asks for figures waits for the loop to have a moment."""
SLICE_SECONDS = 0.25
"""How long services are worked on before the store is asked again what has changed."""
FAILURES_TOLD = 20
OVERDUE_SECONDS = 5.0
"""After that a service has its turn also where others of higher priority are due over and over."""


class SchedulerLoop:
    """One scheduler. ``run`` blocks until ``stop`` is set; ``tick`` does one round and is what simulations call.

    ``name`` is unique among all schedulers, and what locks show to people. ``lost_after``: seconds without a living
    agent after which a host's tasks are replaced, counted while the store answers. ``keeper``: of the lease that this
    process has already, if it has one. ``workers``: how many services are worked on at once; with one of them all is
    done in the thread that calls. ``observer``: of its events. ``shadow``: a
    scheduler that is asked about each decision as well, and changes nothing. ``evaluated``: is told how many seconds
    each evaluation of a service took. ``signer``: signs what is issued.
    """

    def __init__(
        self,
        *,
        store: Store,
        plugins: Plugins,
        health: HealthProvider,
        name: str,
        lost_after: float = DEFAULT_LOST_AFTER_SECONDS,
        clock: Clock,
        keeper: LeaseKeeper | None = None,
        workers: int = 1,
        observer: Observer = lambda _: None,
        shadow: str = "",
        evaluated: Callable[[float], None] | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._monitor = threading.Lock()
        self._pulse, self._evaluated = Pulse(clock), evaluated
        self._store = YieldingStore(store, self._monitor, self._pulse.go_on)
        self._plugins, self._health, self._name, self._clock = plugins, health, name, clock
        self._keeper = keeper or LeaseKeeper(store, clock)
        self._absences, self._drains, self._rejections = Absences(lost_after), Drains(), Rejections()
        ports_of = ContainerPorts(spec_checkers(plugins))
        self._view = View(ports_of, self._rejections)
        self._feed = SchedulerFeed(self._store, self._view, clock)
        self.journal = Journal(self._store, clock, f"scheduler {name}", observer)
        self._shadowing = (
            Shadowing(store, shadow, self.journal, environment=plugins.rules.environment()) if shadow else None
        )
        self._evaluator = Evaluator(
            store=self._store,
            plugins=plugins,
            health=health,
            keeper=self._keeper,
            view=self._view,
            feed=self._feed,
            rejections=self._rejections,
            moves=RolloutMoves(
                store=self._store,
                view=self._view,
                feed=self._feed,
                journal=self.journal,
                clock=clock,
                ports_of=ports_of,
            ),
            service_moves=ServiceMoves(self._view, self.journal),
            journal=self.journal,
            name=name,
            shadow=self._shadowing.ask if self._shadowing else None,
            sign=(lambda task: signer.signed(task, self._uid)) if signer is not None else None,
        )
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="evaluate") if workers > 1 else None
        self._due: dict[str, float] = {}
        """Services to evaluate, and from when on: the first in line at that time, others their turns later."""
        self._open: dict[str, float] = {}
        """Services that wait for room or health, and when they were last looked at."""
        self._ranked: Mapping[str, Collection[str]] = {}
        self._ranks: dict[tuple[str, str], int] = {}
        """Places in line among the ``_ranked`` processes, by service and the scheduler it is placed by."""
        self._news = False
        self._avoided_until = float("inf")
        self._uid, self._said_empty = "", False
        self._faults: dict[str, str] = {}
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._failures = 0
        self._held_back = 0
        self._lost: set[str] = set()
        self._announced = Announced(self._store, self._keeper, clock, name, plugins.names("scheduler"))
        self._trim_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Schedule until ``stop`` is set, through outages of any length."""
        renewer = self._keeper.serve(self._halt)
        self.start_watching()
        call_when_set(stop, self.wake)
        log.info("scheduler %s started", self._name)
        while not stop.is_set():
            self._pulse.begin()
            pause = self.step()
            self._pulse.rest(pause + SOON_SECONDS * bool(self._failures))
            if self._failures:  # after which everything is read anew: not at once with every change that wakes it
                self._clock.wait(stop, SOON_SECONDS)
            self._clock.wait(self._wake, pause)
        self._halt.set()
        if self._pool is not None:
            self._pool.shutdown()
        if self._shadowing is not None:
            self._shadowing.close()
        renewer.join(5.0)
        log.info("scheduler %s stopped", self._name)

    def pulses(self) -> dict[str, Pulse]:
        """Of its loop, by name. Callable from any thread."""
        return {"scheduler": self._pulse}

    def figures(self) -> SchedulerFigures | None:
        """What there is to be told of this scheduler now; None if it is too busy to say. Callable from any thread."""
        if not self._monitor.acquire(timeout=FIGURES_SECONDS):
            return None
        try:
            now, present = self._clock.monotonic(), len(self._feed.present)
            mine = [at for service, at in self._due.items() if self._mine(service)]
            return of_scheduler(self._view, mine, now, pulses=self.pulses(), schedulers=present, failing=self._failures)
        finally:
            self._monitor.release()

    def wake(self) -> None:
        """Have the loop look again now (also to notice ``stop``). Callable from any thread."""
        self._wake.set()

    def start_watching(self) -> None:
        """Begin to watch what a decision depends on. Call once, before the first ``step``."""
        self._feed.watch(self.wake, self._halt)
        Watcher("health", self._wait_for_health, self._health_changed, self._halt)

    def _wait_for_health(self, since: int, timeout: float) -> int:
        """While no decision depends on health, thousands of tasks that start need not be heard of one by one."""
        known = self._evaluator.health
        if self._clock.monotonic() > known.wanted_until:
            known.wanted.clear()
            if self._clock.monotonic() <= known.wanted_until:  # asked for just now
                known.wanted.set()
        return self._health.wait(since, timeout) if known.wanted.wait(timeout) else since

    def _health_changed(self) -> None:
        self._evaluator.health.invalidate()
        self._news = True
        self.wake()

    def step(self) -> float:
        """One tick with every error turned into a pause; returns the seconds to wait if nothing changes."""
        self._wake.clear()
        try:
            pause = self.tick()
        except Unavailable as error:
            if self._failures == 0:
                log.warning("%s; what runs goes on, retrying", error)
            self._absences.reset()
            self._evaluator.forget_times()
            return self._back_off()
        except LeaseLost as error:
            if self._failures == 0:
                log.warning("%s; starting over once it is renewed, or with a new one", error)
            self._absences.reset()  # whatever kept it from renewing may keep agents from it
            return self._back_off()
        except Exception as error:  # a permission that lacks for a while, a plugin's mistake: it may pass
            if self._failures % FAILURES_TOLD == 0:
                trace = None if isinstance(error, SkedError) else error
                log.error("round %d in a row that failed: %s; retrying", self._failures + 1, error, exc_info=trace)
            self._announced.failed(error)
            return self._back_off()
        if self._failures:
            log.info("the store answers again")
        self._failures = 0
        return min(pause, self._announced.worked())

    def _back_off(self) -> float:
        self._failures += 1
        self._feed.invalidate()
        return backoff.delay(self._failures, self._name, base=0.2, cap=5.0)

    def tick(self) -> float:
        """Evaluate every service that may have changed. Returns seconds until the next look is due.

        Raises Unavailable, LeaseLost.
        """
        now = self._clock.monotonic()
        with self._monitor:
            if not self._same_store():
                return RETRY_SECONDS
            self._feed.present = self._announced.write(self._feed.present)
            self._view.fleet.now = now
            pause = self._feed.look(now, self._mine)
            # The look may have shown that the key went with its lease.
            self._feed.present = self._announced.write(self._feed.present)
            self._take_in(now)
            self._evaluator.give_back(now)
            self._tidy(now)
        pause = min(pause, self._work(now))
        due = (self._absences.next_change(now), self._drains.next_change(now), self._rejections.next_change(now))
        pause = max(0.0, min(pause, *due))
        self._absences.awaited = now + pause
        return pause

    def _same_store(self) -> bool:
        """Whether the store is still the one that this process knows. A store that came back empty is not worked on
        until it has been given a new name (by an apply or a new agent): what it lacks was not deleted by anybody."""
        uid = store_uid(self._store, create=not self._uid)
        if not uid:
            if not self._said_empty:
                log.error("the store came back empty (no %s): waiting, nothing is scheduled", keys.STORE_UID)
            self._said_empty = True
            self._feed.invalidate()
            return False
        if self._uid and uid != self._uid:
            log.error("the store is another one than before (%s, was %s): starting over with it", uid, self._uid)
            self._keeper.drop()
            self._absences.reset()
            self._feed.invalidate()
        self._uid, self._said_empty = uid, False
        return True

    def _rank(self, service: str) -> int:
        if self._ranked is not self._feed.present:
            self._ranked, self._ranks = self._feed.present, {}
        asked = (service, self._evaluator.scheduler_of(service))
        if asked not in self._ranks:
            known = asked[1] in self._plugins.names("scheduler")  # else it is for a program outside, and we tidy up
            self._ranks[asked] = rank(service, self._name, self._ranked, asked[1] if known else DEFAULT_SCHEDULER)
        return self._ranks[asked]

    def _first_for(self, what: str) -> bool:
        """Whether this process stands first in line for something that is no service."""
        return rank(what, self._name, self._feed.present, DEFAULT_SCHEDULER) == 0

    def _mine(self, service: str) -> bool:
        return self._rank(service) == 0

    def _tidy(self, now: float) -> None:
        """Tell what is to be told, and remove what nobody needs any more. Raises Unavailable."""
        self._feed.clear_markers(now, self._mine)
        self.journal.flush()
        if now >= self._trim_at:
            self._trim_at = now + TRIM_SECONDS
            if self._first_for("events"):
                self.journal.trim()

    def _take_in(self, now: float) -> None:
        """Find out which services what has changed may concern."""
        view = self._view
        if view.update_fleet(self._absences, self._drains, now):
            self._tell_of_hosts()
        changes, view.changes = view.changes, Changes()
        self._rejections.update(view.rejected.values(), now)
        for service in changes.services:
            self._due[service] = min(now, self._due.get(service, now))
        news = self._news or changes.services or changes.hosts or now >= self._avoided_until
        self._news, self._avoided_until = False, now + self._rejections.next_change(now)
        if news:  # it may be what others wait for
            for service, looked in self._open.items():
                self._due[service] = min(max(now, looked + SOON_SECONDS), self._due.get(service, float("inf")))
        faults = view.faults()
        for key in faults.keys() - self._faults.keys():
            log.warning("%s is left alone: %s", key, faults[key])
        self._faults = faults
        held_back = self._absences.held_back(now)
        if len(held_back) > self._held_back:
            log.error("more hosts vanished than is plausible: tasks stay on %s for now", ", ".join(held_back))
        self._held_back = len(held_back)

    def _tell_of_hosts(self) -> None:
        """Which hosts are lost, and which are not any more. Told by whoever stands first in line for the host."""
        lost = {name for name, view in self._view.fleet.hosts.items() if view.lost}
        if lost == self._lost:
            return
        for what, hosts, why in (
            ("host.lost", lost - self._lost, "its agent has not been heard of for too long"),
            ("host.returned", self._lost - lost, ""),
        ):
            for host in sorted(hosts):
                if self._first_for(host):
                    self.journal.add(self.journal.event(what, f"host/{host}", host=host, why=why))
        self._lost = lost

    def _work(self, now: float) -> float:
        """Evaluate what is due; returns the seconds until something else is. Raises Unavailable, LeaseLost."""
        ready, pause = self._ready(now)
        ends = self._clock.monotonic() + SLICE_SECONDS  # not from `now`: a slow store has taken longer since to be read
        if self._pool is None:
            self._work_through(ready, now, ends)
        else:
            works = [self._pool.submit(self._work_through, ready, now, ends) for _ in range(self._workers)]
            for work in wait(works).done:
                work.result()
        if ready:
            return 0.0
        return min([pause, *(due - now for due in self._due.values() if due > now)])

    def _ready(self, now: float) -> tuple[deque[tuple[str, bool]], float]:
        """What is due, with whether this process is first in line for it; and seconds until its turn for something else
        comes.

        What it is first in line for comes first: what is overdue, then the highest priority, then the longest due. What
        it does for others, who work through theirs in that order, it takes from the end.
        """

        def order(service: str) -> tuple[int, float, str]:
            late = now - self._due[service] > OVERDUE_SECONDS
            return -101 if late else -self._view.priority(service), self._due[service], service

        pause = float("inf")
        places = {service: self._rank(service) for service in self._due}
        mine = sorted((name for name in places if places[name] == 0), key=order)
        others = sorted((-self._view.priority(name), name) for name in places if places[name] > 0)
        ready: deque[tuple[str, bool]] = deque()
        for service in (*mine, *(name for _, name in reversed(others))):
            turn = self._due[service] + places[service] * TURN_SECONDS
            if turn > now:
                pause = min(pause, turn - now)
            elif not places[service] or not self._feed.stale(service):  # stale: somebody has just worked on it
                ready.append((service, places[service] == 0))
        return ready, pause

    def _work_through(self, ready: deque[tuple[str, bool]], now: float, ends: float) -> None:
        """Evaluate services until there are none or the slice ``ends``. Run by several threads at once."""
        while ready and self._clock.monotonic() <= ends:
            with self._monitor:
                if not ready:
                    return
                service, first = ready.popleft()
                del self._due[service]
                self._open.pop(service, None)
                began = self._clock.monotonic() if self._evaluated else 0.0
                outcome = self._evaluator.evaluate(service, now, first=first)
                if self._evaluated:
                    self._evaluated(self._clock.monotonic() - began)
                if outcome.open:
                    self._open[service] = now
                if outcome.again is not None:
                    again = self._clock.monotonic() + outcome.again
                    self._due[service] = min(again, self._due.get(service, float("inf")))
