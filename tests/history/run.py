"""One run: faults for some minutes, then peace until all has settled, then the verdict."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from history.checker import Verdict, check
from history.engines import Engine
from history.hosts import SimulatedHosts
from history.nemesis import Nemesis, Scheduler
from history.recorder import PREFIX, RecordedStore
from history.records import History, Look, read_commits, revisions
from history.users import CLUSTERS, Users
from sked_core.errors import SkedError
from sked_core.model import codec, keys
from sked_core.model.types import Service, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

HOSTS = [f"host-{number}" for number in range(1, 9)]
LOOKED_AT = (keys.STATE, keys.LOCKS, keys.LIVE, keys.SERVICES)
LOOK_SECONDS = 0.5
SETTLE_SECONDS = 240.0
"""A bound for hangs: how long everything may take to be as declared, and leases to end, once the faults are over."""


@dataclass(slots=True)
class Run:
    """What happened. ``unsettled``: what was not as declared in the end; ``failures``: why the run itself is void."""

    backend: str
    version: str
    seed: int
    seconds: float
    schedulers: int
    history: History
    verdict: Verdict
    faults: Counter[str]
    changes: Counter[str]
    paused_seconds: list[float]
    settled_after: float
    unsettled: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether all that had to hold did."""
        return not (self.verdict.violations or self.unsettled or self.failures)


def run(
    engine: Engine, folder: Path, *, backend: str, seconds: float, seed: int, schedulers: int = 4, pace: float = 15.0
) -> Run:
    """Run ``schedulers`` against ``engine`` under faults for ``seconds``. Everything that is started is ended again.

    ``pace``: seconds of peace between two faults of one process, on average. Files go to ``folder``.
    """
    with contextlib.ExitStack() as cleanup:
        engine.start()
        cleanup.callback(engine.end)
        return _Running(engine, folder, seed, schedulers, pace, cleanup).run(backend, seconds)


class _Running:
    def __init__(
        self, engine: Engine, folder: Path, seed: int, count: int, pace: float, cleanup: contextlib.ExitStack
    ) -> None:
        self._engine, self._folder, self._seed = engine, folder, seed
        self._plugins = Plugins.load()
        self._cleanup = cleanup
        self._over, self._faults_over = threading.Event(), threading.Event()
        self._hosts = SimulatedHosts(self._store("hosts"), HOSTS, seed, self._over)
        self._users = Users(self._store("users"), HOSTS, self._hosts.leave, seed)
        self._schedulers = [Scheduler(place, engine.url, folder) for place in range(1, count + 1)]
        self._nemesis = Nemesis(self._schedulers, engine.server, seed=seed, pace=pace, stop=self._faults_over)
        self._bare = open_store(engine.url, self._plugins)
        cleanup.callback(self._bare.close)
        self._onlooker = self._store("onlooker")
        self._looks: list[Look] = []

    def _store(self, name: str) -> RecordedStore:
        store = RecordedStore(open_store(self._engine.url, self._plugins), self._folder, name)
        self._cleanup.callback(store.close)
        return store

    def run(self, backend: str, seconds: float) -> Run:
        self._cleanup.callback(self._over.set)
        self._users.declare()
        threads = self._hosts.start()
        threads.append(_thread(self._look_on))
        for scheduler in self._schedulers:
            self._cleanup.callback(scheduler.kill)
            scheduler.start()
        disturbing = [*self._nemesis.start(), _thread(self._users.run, self._faults_over)]
        self._faults_over.wait(seconds)
        self._faults_over.set()
        for thread in disturbing:
            thread.join(120)
        unsettled, settled_after = self._settle()
        self._over.set()
        for thread in threads:
            thread.join(60)
        unsettled += self._wait_for(lambda: self._leases(0), SETTLE_SECONDS)[0]
        history = self._history()
        return Run(
            backend=backend,
            version=self._engine.version,
            seed=self._seed,
            seconds=seconds,
            schedulers=len(self._schedulers),
            history=history,
            verdict=check(history),
            faults=self._nemesis.faults,
            changes=self._users.changes,
            paused_seconds=self._nemesis.paused_seconds,
            settled_after=settled_after,
            unsettled=unsettled,
            failures=[*map(str, self._nemesis.failures), *self._tracebacks()],
        )

    def _look_on(self) -> None:
        """Take consistent reads of what matters: what outsiders saw is evidence beside what processes recorded."""
        while not self._over.wait(LOOK_SECONDS):
            with contextlib.suppress(SkedError):
                # Consul tells a prefix's last change, which it forgets in time; a commit gives a lower bound.
                earliest = self._onlooker.commit([])
                for prefix in LOOKED_AT:
                    snapshot = self._onlooker.read(prefix)
                    self._looks.append(Look.of(prefix, max(earliest, snapshot.revision), snapshot.entries))

    def _settle(self) -> tuple[list[str], float]:
        """Peace: nothing is disturbed any more, and what is declared can be had."""
        for scheduler in self._schedulers:
            scheduler.signal(signal.SIGCONT)
        self._hosts.calm.set()
        self._wait_for(self._declared_in_peace, SETTLE_SECONDS)
        unsettled, seconds = self._wait_for(lambda: [*self._open_ends(), *self._leases(1)], SETTLE_SECONDS)
        for scheduler in self._schedulers:
            try:
                code = scheduler.end()
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                unsettled.append(f"{scheduler.name} ended with {code}")
        unsettled += [f"{key} is left behind" for prefix in (keys.LOCKS, keys.SCHEDULERS) for key in self._keys(prefix)]
        return unsettled, seconds

    def _keys(self, prefix: str) -> list[str]:
        return sorted(self._bare.read(prefix).entries)

    def _declared_in_peace(self) -> list[str]:
        self._users.settle()
        return []

    def _wait_for(self, what: Callable[[], list[str]], patience: float) -> tuple[list[str], float]:
        """Wait until ``what`` finds nothing to complain of; what it still does in the end, and the seconds it took."""
        began = time.monotonic()
        while True:
            try:
                complaints = what()
            except (SkedError, OSError) as error:
                complaints = [str(error)]
            if not complaints or time.monotonic() - began > patience:
                return complaints, time.monotonic() - began
            time.sleep(0.5)

    def _open_ends(self) -> list[str]:
        """Where issued is not desired, and what is held though nothing is left to do."""
        complaints = [f"{key} is held" for key in self._keys(keys.LOCKS)]
        services = {
            keys.last_segment(key): codec.decode(entry.value, Service)
            for key, entry in self._bare.read(keys.SERVICES).entries.items()
        }
        state = self._bare.read(keys.STATE).entries
        by_host = {
            keys.last_segment(key): entry.value for key, entry in state.items() if key.startswith(keys.HOST_TASKS)
        }
        issued: Counter[tuple[str, str, int]] = Counter()
        for key, entry in state.items():
            if key.startswith(keys.TASKS):
                task = codec.decode(entry.value, Task)
                issued[task.cluster.name, task.service, task.task_definition.version] += 1
                if by_host.pop(task.id, None) != entry.value or task.rejected or not task.scheduled:
                    complaints.append(f"{task.id} is not in order")
        desired = {
            (cluster, name, services[name].task_version): services[name].desired
            for cluster, names in CLUSTERS.items()
            for name in names
            if name in services
        }
        complaints += [f"{key} is under its host only" for key in by_host]
        return complaints + _differences(desired, issued)

    def _leases(self, of_others: int) -> list[str]:
        """That there is one lease for each living process. ``of_others``: beside the schedulers'."""
        expected = of_others + len(self._schedulers) * (of_others > 0)
        found = self._engine.leases()
        return [] if found == expected else [f"{found} leases of {expected} processes"]

    def _tracebacks(self) -> list[str]:
        """Whatever happens, no scheduler may meet an error that it does not know."""
        logs = [log for log in sorted(self._folder.glob("*.log")) if "Traceback" in log.read_text()]
        return [f"{log.stem} logged a traceback: {log.read_text().rstrip().splitlines()[-1]}" for log in logs]

    def _history(self) -> History:
        commits, strays = read_commits(self._folder, revisions(self._bare.read(PREFIX).entries))
        return History(commits, strays, self._engine.events(), self._looks)


def _differences(desired: Mapping[tuple[str, str, int], int], issued: Mapping[tuple[str, str, int], int]) -> list[str]:
    return [
        f"{'/'.join(map(str, which))}: {issued.get(which, 0)} issued of {desired.get(which, 0)} desired"
        for which in sorted(desired.keys() | issued.keys())
        if desired.get(which, 0) != issued.get(which, 0)
    ]


def _thread(run: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=run, args=arguments, daemon=True)
    thread.start()
    return thread
