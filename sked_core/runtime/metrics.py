"""Figures of a running process in the format of Prometheus.

A process that shows none of them imports this module never, and counts nothing. In one that does, what loops know
anyway is counted when it is asked for (figures.py of agent/ and scheduling/); only calls of the store, jobs of the
agent and evaluations are measured as they happen, each of which takes a thousand times as long as counting it. No label
names a task.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client import Counter as Counted
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

import sked_core
from sked_core.errors import Conflict, Denied, LeaseLost, SkedError
from sked_core.interfaces.store import Store
from sked_core.model.types import Event
from sked_core.runtime.agent.figures import AgentFigures
from sked_core.runtime.journal import Observer
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.pulse import Pulse
from sked_core.runtime.scheduling.figures import SchedulerFigures
from sked_core.runtime.stores.around import StoreAround
from sked_core.runtime.workers import Workers

Sample = tuple[str, tuple[str, ...], float]
CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of what durations are sorted into; a start may have to fetch an image."""
HISTOGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sked_store_call_duration_seconds": ("How long calls of the store took, also those that failed.", ("operation",)),
    "sked_agent_step_duration_seconds": (
        "How long steps with tasks, and looks at them, took in a worker: the time of the executor, or of the store or "
        "the health provider where none is named.",
        ("executor", "step"),
    ),
    "sked_scheduler_evaluation_duration_seconds": (
        "How long evaluations of one service took, with what they wrote.",
        (),
    ),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sked_build_info": ("1; what runs here.", ("version", "python", "roles")),
    "sked_store_answered_timestamp_seconds": ("When the store last answered.", ()),
    "sked_loop_late_seconds": (
        "For how long a round of the loop has come no further, or should have begun; 0 while it rests.",
        ("loop",),
    ),
    "sked_lease_age_seconds": ("Since the lease of this process was last known to live.", ()),
    "sked_agent_tasks": ("Tasks on this host.", ("cluster", "service", "state", "health")),
    "sked_agent_steps_under_way": ("Steps with tasks that workers have begun and not ended.", ()),
    "sked_agent_frozen": ("1 while the store is not the one known before: nothing is started or stopped.", ()),
    "sked_agent_executor_up": ("1 while the executor answers.", ("executor",)),
    "sked_agent_store_look_age_seconds": ("Since the store last told what is issued to this host.", ()),
    "sked_scheduler_services": ("Services that are declared, or scheduled and to be withdrawn.", ()),
    "sked_scheduler_desired_tasks": ("Tasks that are desired.", ("service",)),
    "sked_scheduler_issued_tasks": ("Tasks that exist in the store, also those that are to stop.", ("service",)),
    "sked_scheduler_waiting_tasks": ("Tasks that no host has room for.", ("service",)),
    "sked_scheduler_rejected_tasks": ("Tasks that their agents have refused and that still stand so.", ("service",)),
    "sked_scheduler_blocked": ("1 while something keeps the service from what is desired.", ("service",)),
    "sked_scheduler_hosts": ("Hosts.", ("state",)),
    "sked_scheduler_rollouts": ("Roll-outs under way.", ("state",)),
    "sked_scheduler_due_services": ("Services whose turn has come and that are not evaluated yet.", ()),
    "sked_scheduler_lag_seconds": ("For how long the service that waits longest for its turn has been due.", ()),
    "sked_scheduler_unreadable_keys": ("Keys of the store that hold no valid object, and are left alone.", ()),
    "sked_scheduler_processes": ("Scheduler processes that stand in line, this one too.", ()),
    "sked_scheduler_failing_rounds": ("Rounds in a row that ended in an error; 0 while all is well.", ()),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sked_store_waits_total": ("Waits for a change in the store, each for up to a minute.", ()),
    "sked_store_errors_total": ("Calls of the store that failed, by what was raised.", ("operation", "error")),
    "sked_loop_rounds_total": ("Rounds of the loop.", ("loop",)),
    "sked_loop_busy_seconds_total": ("How long all rounds of the loop took together.", ("loop",)),
    "sked_lease_losses_total": ("Leases of this process that ended before it gave them back.", ()),
    "sked_events_total": ("Events that this process told.", ("event",)),
    "sked_agent_task_starts_total": ("Tasks started.", ("service",)),
    "sked_agent_task_restarts_total": ("Of these, starts after a failure.", ("service",)),
    "sked_agent_task_stops_total": ("Tasks stopped because they should not run here any more.", ("service",)),
    "sked_agent_task_failures_total": (
        "Tasks that ended by themselves, did not start, or were unhealthy for too long.",
        ("service", "cause"),
    ),
    "sked_agent_task_rejections_total": ("Tasks that this host refused.", ("service",)),
    "sked_scheduler_placements_total": ("Tasks issued to a host.", ("service",)),
    "sked_scheduler_withdrawals_total": ("Tasks that were told to stop.", ("service",)),
}
FAILURES = ("crashed", "start_failed", "unhealthy")
"""Ends of runs that nobody wanted (model.endings)."""
OF_EVENTS = {
    "task.started": "sked_agent_task_starts_total",
    "task.stopped": "sked_agent_task_stops_total",
    "task.rejected": "sked_agent_task_rejections_total",
    "task.issued": "sked_scheduler_placements_total",
    "task.withdrawn": "sked_scheduler_withdrawals_total",
}
"""What counts the events of a kind by their service."""


class Metrics:
    """Of one process, whose ``roles`` are such as ``agent`` and ``scheduler``. What is measured goes through ``store``,
    ``workers``, ``observer`` and ``evaluated``; ``text`` is what Prometheus reads. Callable from any thread.

    ``registry``: where programs that show more than this register it.
    """

    def __init__(self, roles: Sequence[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._roles = ",".join(roles)
        self._sources: list[Callable[[], AgentFigures | SchedulerFigures | None]] = []
        self._keepers: list[LeaseKeeper] = []
        self._pulses: list[Callable[[], Mapping[str, Pulse]]] = []
        self._told: Counter[tuple[str, ...]] = Counter()
        self._telling = threading.Lock()
        self._calls = self._histogram("sked_store_call_duration_seconds", CALL_SECONDS)
        self._waits = Counted(*_measured("sked_store_waits_total"), registry=self.registry)
        self._errors = Counted(*_measured("sked_store_errors_total"), registry=self.registry)
        self._answered = Gauge(*_measured("sked_store_answered_timestamp_seconds"), registry=self.registry)
        if "agent" in roles:
            self._steps = self._histogram("sked_agent_step_duration_seconds", STEP_SECONDS)
        if "scheduler" in roles:
            self._evaluations = self._histogram("sked_scheduler_evaluation_duration_seconds", CALL_SECONDS)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def _histogram(self, name: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(*_measured(name), buckets=bounds, registry=self.registry)

    # --- what is measured -----------------------------------------------------------------------------------------

    def store(self, store: Store) -> Store:
        """``store``, with its calls measured."""
        return _MeasuredStore(store, self)

    @contextlib.contextmanager
    def call(self, operation: str) -> Iterator[None]:
        """One call of the store."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            self._errors.labels(operation, type(error).__name__ if isinstance(error, SkedError) else "other").inc()
            if isinstance(error, Conflict | LeaseLost | Denied):  # that is an answer too
                self._answered.set_to_current_time()
            raise
        else:
            self._answered.set_to_current_time()
        finally:
            if operation == "wait":
                self._waits.inc()
            else:
                self._calls.labels(operation).observe(time.monotonic() - began)

    def workers(self, workers: Workers) -> Workers:
        """``workers`` of an agent, with their jobs measured."""
        return _MeasuredWorkers(workers, self._steps)

    def observer(self, observer: Observer) -> Observer:
        """``observer``, with the events that it is told counted."""

        def observe(event: Event) -> None:
            counted = [("sked_events_total", event.what)]
            if event.what in OF_EVENTS:
                counted.append((OF_EVENTS[event.what], event.service))
            if event.what == "task.started" and event.why:
                counted.append(("sked_agent_task_restarts_total", event.service))
            with self._telling:
                self._told.update(counted)
            observer(event)

        return observe

    def evaluated(self, seconds: float) -> None:
        """A service was evaluated."""
        self._evaluations.observe(seconds)

    # --- what is sampled ------------------------------------------------------------------------------------------

    def keeper(self, keeper: LeaseKeeper) -> None:
        """Tell of the lease of this process."""
        self._keepers.append(keeper)

    def loops(self, pulses: Callable[[], Mapping[str, Pulse]]) -> None:
        """Tell of loops that show nothing but whether they go on, by name."""
        self._pulses.append(pulses)

    def sample(self, figures: Callable[[], AgentFigures | SchedulerFigures | None]) -> None:
        """Have ``figures`` of a loop asked for whenever somebody reads them."""
        self._sources.append(figures)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """All figures, and their content type: as ``accept``, a client's header of that name, asks for."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def collect(self) -> Iterator[Metric]:
        """What is sampled, family by family. Called by the registry."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for name, labels, value in self._samples():
            found.setdefault(name, {})[labels] = value
        for name, values in found.items():
            text, names = GAUGES.get(name) or COUNTERS[name]
            kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
            family = kind(name, text, labels=names)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _samples(self) -> Iterator[Sample]:
        yield "sked_build_info", (sked_core.__version__, platform.python_version(), self._roles), 1.0
        with self._telling:
            told = list(self._told.items())
        for (name, label), count in told:
            yield name, (label,), count
        for keeper in self._keepers:
            yield "sked_lease_losses_total", (), keeper.losses
            if (age := keeper.age()) is not None:
                yield "sked_lease_age_seconds", (), age
        for pulses in self._pulses:
            yield from _of_pulses(pulses())
        for source in self._sources:
            figures = source()
            if figures is not None:
                yield from _of_pulses(figures.pulses)
                yield from _of_agent(figures) if isinstance(figures, AgentFigures) else _of_scheduler(figures)


def catalog() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """All that Sked's processes show: the name, its type, labels and meaning."""
    kinds = {"histogram": HISTOGRAMS, "gauge": GAUGES, "counter": COUNTERS}
    return {name: (kind, of[name][1], of[name][0]) for kind, of in kinds.items() for name in of}


def _measured(name: str) -> tuple[str, str, tuple[str, ...]]:
    _, labels, text = catalog()[name]
    return name, text, labels


def _of_pulses(pulses: Mapping[str, Pulse]) -> Iterator[Sample]:
    for loop, pulse in pulses.items():
        yield "sked_loop_late_seconds", (loop,), pulse.late()
        yield "sked_loop_rounds_total", (loop,), pulse.rounds
        yield "sked_loop_busy_seconds_total", (loop,), pulse.busy


def _of_agent(figures: AgentFigures) -> Iterator[Sample]:
    for labels, count in figures.tasks.items():
        yield "sked_agent_tasks", labels, count
    for (service, cause), count in list(figures.ends.items()):
        if cause in FAILURES:
            yield "sked_agent_task_failures_total", (service, cause), count
    yield "sked_agent_steps_under_way", (), figures.under_way
    yield "sked_agent_frozen", (), figures.frozen
    for kind in sorted(figures.engines.available):
        up = kind in figures.engines.recovered and kind not in figures.engines.failing
        yield "sked_agent_executor_up", (kind,), up
    if figures.look_age is not None:
        yield "sked_agent_store_look_age_seconds", (), figures.look_age


def _of_scheduler(figures: SchedulerFigures) -> Iterator[Sample]:
    yield "sked_scheduler_services", (), figures.count
    columns = ("desired_tasks", "issued_tasks", "waiting_tasks", "rejected_tasks", "blocked")
    for service, row in figures.services.items():
        for column, value in zip(columns, row, strict=True):
            yield f"sked_scheduler_{column}", (service,), value
    for state, count in figures.hosts.items():
        yield "sked_scheduler_hosts", (state,), count
    for state, count in figures.rollouts.items():
        yield "sked_scheduler_rollouts", (state,), count
    yield "sked_scheduler_due_services", (), figures.due
    yield "sked_scheduler_lag_seconds", (), figures.oldest
    yield "sked_scheduler_unreadable_keys", (), figures.faults
    yield "sked_scheduler_processes", (), figures.schedulers
    yield "sked_scheduler_failing_rounds", (), figures.failing


class _MeasuredStore(StoreAround):
    """``store``, each of whose calls is told to ``metrics``."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        super().__init__(store)
        self._metrics = metrics

    def around(self, operation: str) -> contextlib.AbstractContextManager[None]:
        return self._metrics.call(operation)


class _MeasuredWorkers:
    """``workers``, each of whose jobs is told to ``steps`` by what its pool is for, such as ``docker start``."""

    def __init__(self, workers: Workers, steps: Histogram) -> None:
        self._workers, self._steps = workers, steps

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        executor, _, step = pool.rpartition(" ")
        steps = self._steps.labels(executor, step)

        def measured() -> None:
            with steps.time():
                job()

        self._workers.submit(pool, measured)

    def close(self) -> None:
        self._workers.close()
