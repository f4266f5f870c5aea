"""What goes wrong: schedulers are paused, stopped in the worst moment and killed, the store is killed and paused."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from history.recorder import FOLDER, NAME, SCHEME
from history.records import SCHEDULER
from rigs.local import Server
from sked_core.runtime.lock import LEASE_TTL_SECONDS

SKED = Path(sys.executable).with_name("sked")
HERE = Path(__file__).resolve().parent
LONGEST_PAUSE_SECONDS = 3 * LEASE_TTL_SECONDS
LOST_AFTER = "6s"
AIM_SECONDS = 20.0
"""How long a scheduler may take until its next fenced commit, at which it was told to stop."""
END_SECONDS = 60.0
OBEY_SECONDS = 30.0
"""Bounds for hangs: how long a process may take to end, and to do what it has begun to."""
WEIGHTS = {"pause": 4, "stop": 4, "forget": 2, "crash": 2, "kill": 1, "die": 1}
"""How often a scheduler suffers what, in relation to one another."""
ORDERS = {
    "stop": "stopped before a commit",
    "forget": "left without the answer to a commit",
    "kill": "killed before a commit",
    "die": "killed after a commit",
}
WORST_STORE_SECONDS = 8.0


class Scheduler:
    """``sked run scheduler``, whose successors take its place. Every process has a name of its own."""

    def __init__(self, place: int, url: str, folder: Path) -> None:
        self._place, self._url, self._folder = place, url, folder
        self._lives = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.name = ""

    def start(self) -> None:
        self.name = f"{SCHEDULER}-{self._place}.{next(self._lives)}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SKED_", "CONSUL_", "ETCD"))}
        paths = os.pathsep.join([str(HERE.parent), str(HERE / "installed")])
        env = {**clean, "PYTHONPATH": paths, FOLDER: str(self._folder), NAME: self.name}
        command = [str(SKED), "--backend", SCHEME + self._url, "run", "scheduler", "--lost-after", LOST_AFTER]
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def state(self) -> str:
        """``running``, ``stopped`` or ``dead``."""
        assert self._process is not None
        if self._process.poll() is not None:
            return "dead"
        with contextlib.suppress(psutil.NoSuchProcess):
            return "stopped" if psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED else "running"
        return "dead"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def end(self) -> int:
        """SIGTERM; returns the exit code. Raises subprocess.TimeoutExpired if it does not end."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(END_SECONDS)

    def aim(self, order: str, stop: threading.Event) -> bool:
        """Give it an order (see RecordedStore) for its next commit that depends on its lease; whether it obeyed."""
        path = self._folder / f"{self.name}.{order}"
        path.touch()
        deadline = time.monotonic() + AIM_SECONDS
        while time.monotonic() < deadline and not stop.is_set():
            if not path.exists():
                return self._follow(order)
            stop.wait(0.05)
        try:
            path.unlink()
        except FileNotFoundError:
            return self._follow(order)
        return False

    def _follow(self, order: str) -> bool:
        if order == "forget":
            return True
        wanted = "stopped" if order == "stop" else "dead"
        deadline = time.monotonic() + OBEY_SECONDS
        while self.state() != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.state() == wanted


class Nemesis:
    """A thread for each scheduler and one for the store, each with dice of its own, until ``stop`` is set.

    ``pace``: seconds of peace between two faults of one scheduler, on average; the store has twice as long.
    """

    def __init__(
        self, schedulers: list[Scheduler], server: Server | None, *, seed: int, pace: float, stop: threading.Event
    ) -> None:
        self._schedulers, self._server, self._seed, self._pace = schedulers, server, seed, pace
        self._stop = stop
        self.faults: Counter[str] = Counter()
        self.paused_seconds: list[float] = []
        self.failures: list[BaseException] = []

    def start(self) -> list[threading.Thread]:
        """Returns the threads; when they have ended, all runs again."""
        threads = [
            threading.Thread(target=self._guarded, args=(self._haunt, scheduler, self._seed + number), daemon=True)
            for number, scheduler in enumerate(self._schedulers, 1)
        ]
        if self._server is not None:
            arguments = (self._shake, self._server, self._seed)
            threads.append(threading.Thread(target=self._guarded, args=arguments, daemon=True))
        for thread in threads:
            thread.start()
        return threads

    def _guarded(self, run: Callable[..., None], *arguments: object) -> None:
        try:
            run(*arguments)
        except BaseException as error:
            self.failures.append(error)
            self._stop.set()

    def _peace(self, dice: random.Random) -> bool:
        """Wait; whether to go on afterwards."""
        return not self._stop.wait(dice.uniform(0.2, 1.8) * self._pace)

    def _haunt(self, scheduler: Scheduler, seed: int) -> None:
        dice = random.Random(seed)
        while self._peace(dice):
            if scheduler.state() == "dead":
                raise RuntimeError(f"{scheduler.name} ended by itself")
            what = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            seconds = dice.uniform(0, LONGEST_PAUSE_SECONDS)
            obeyed = what in ORDERS and scheduler.aim(what, self._stop)
            if what == "pause":
                scheduler.signal(signal.SIGSTOP)
                self._pause(scheduler, seconds, "paused")
            elif what == "stop" and obeyed:
                self._pause(scheduler, seconds, ORDERS[what])
            elif what == "forget" and obeyed:
                self.faults[ORDERS[what]] += 1
            elif what in ("kill", "die") and obeyed:
                self._follow_up(scheduler, dice, ORDERS[what])
            elif what == "crash":
                scheduler.kill()
                self._follow_up(scheduler, dice, "killed")

    def _pause(self, scheduler: Scheduler, seconds: float, what: str) -> None:
        began = time.monotonic()
        self._stop.wait(seconds)
        scheduler.signal(signal.SIGCONT)
        self.faults[what] += 1
        self.paused_seconds.append(time.monotonic() - began)

    def _follow_up(self, scheduler: Scheduler, dice: random.Random, what: str) -> None:
        self.faults[what] += 1
        self._stop.wait(dice.uniform(0, 3))
        scheduler.start()

    def _shake(self, server: Server, seed: int) -> None:
        dice = random.Random(seed)
        while self._peace(dice) and self._peace(dice):
            seconds = dice.uniform(0, WORST_STORE_SECONDS)
            if dice.random() < 0.7:
                server.kill()
                self._stop.wait(seconds)
                server.start()
                self.faults["store killed"] += 1
            else:
                server.pause()
                self._stop.wait(seconds)
                server.resume()
                self.faults["store paused"] += 1
