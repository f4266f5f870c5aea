"""How long until all is well again: after a task's process was killed, and after a host was lost.

python benchmarks/recovery.py [embedded|consul|etcd ...] [--rounds 3] [--lost-after 10]

Tasks are busybox httpd processes with an HTTP check each second. *Killed*: SIGKILL to the process of one of nine tasks
that ran for more than five seconds and had not failed before, until the new process answers and Sked calls the task
healthy; once for each task in every round. *Host lost*: of two hosts with an agent each, the agent and all processes of
its tasks get SIGKILL at once, until four healthy tasks are on the other host and answer there; the host comes back
before the next round, in which the other one is lost. Not on the embedded store, which has one host.

Beside the seconds stands what they are a multiple of: the interval of the checks, and the time after which a host may
be lost at all: the 15 s of its lease and LOST_AFTER seconds. (Consul keeps a lease for up to twice its time.)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bed import until
from engines import NAMES, Engine, fresh  # puts the tests' rigs on the path
from figures import Figure

from rigs.sked import Proc, Rig, service
from rigs.traffic import get
from sked_core.surface.cli import run as sked_command

KILLED, MOVED = 9, 4
STEADY_SECONDS = 5.5
"""A task that ran this long is restarted without back-off, the first time."""
INTERVAL_SECONDS, LEASE_SECONDS = 1.0, 15.0
SERVE = "mkdir -p www; echo $$ >www/index.html; exec /bin/busybox httpd -f -p 127.0.0.1:$PROVIDED_PORT -h www"
CHECKS = [{"http": "http://127.0.0.1:$PROVIDED_PORT/", "interval": f"{INTERVAL_SECONDS:g}s"}]


class Home:
    """Agents and a scheduler on one store. All that they run is ended with it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.rig = Rig(engine.url, folder)
        self._url = engine.url

    def items(self, kind: str = "tasks") -> list[dict[str, Any]]:
        """A command, in this process: what is measured is Sked, not the start of another Python."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = sked_command(["--backend", self._url, kind, "-o", "json"])
        if code:
            raise SystemExit(f"sked {kind} ended with {code}")
        found: list[dict[str, Any]] = json.loads(said.getvalue())["items"]
        return found

    def hosts_ready(self, count: int) -> None:
        until("the hosts", lambda: sum(host["state"] == "ready" for host in self.items("hosts")) == count)

    def declare(self, desired: int) -> None:
        bounds = {"min": 0, "max": desired}
        self.rig.apply(
            service(desired=desired, start=SERVE, bounds=bounds, provide_port=True, container={"checks": CHECKS})
        )
        until("healthy tasks", lambda: len(self.well()) == desired)

    def well(self) -> dict[str, dict[str, Any]]:
        """The tasks, by id, that Sked calls healthy and that answer."""
        return {task["id"]: task for task in self.items() if task["healthy"] and pid_of(task)}


def pid_of(task: dict[str, Any]) -> int:
    """The process that answers for a task; 0 if none does."""
    with contextlib.suppress(OSError, ValueError):
        return int(get(("127.0.0.1", task["port"]), timeout=1.0))
    return 0


@contextlib.contextmanager
def home(engine: Engine) -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="sked-bench-") as folder:
        made = Home(engine, Path(folder))
        try:
            yield made
        finally:
            made.rig.clean_up()


def killed(engine: Engine, rounds: int) -> list[float]:
    took = []
    with home(engine) as where:
        where.rig.run("combined", host="a")
        where.hosts_ready(1)
        for _ in range(rounds):
            where.declare(KILLED)
            time.sleep(STEADY_SECONDS)
            for name, task in where.well().items():
                pid = pid_of(task)
                begun = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                until("another process", lambda task=task, pid=pid: pid_of(task) not in (0, pid))
                until("its health", lambda name=name: name in where.well())
                took.append(time.monotonic() - begun)
            where.rig.sked("scale", "web", "0")  # a second failure within a minute would be followed by a pause
            until("an empty host", lambda: not where.items())
    return took


def lost(engine: Engine, rounds: int, lost_after: float) -> list[float]:
    took = []
    with home(engine) as where:
        agents: dict[str, Proc] = {name: where.rig.run("agent", host=name) for name in "ab"}
        where.rig.run("scheduler", "--lost-after", f"{lost_after:g}s")
        where.hosts_ready(2)
        where.declare(MOVED)
        for number in range(rounds):
            victim, other = ("a", "b") if number % 2 == 0 else ("b", "a")
            there = [task["id"] for task in where.items() if task["host"] == where.rig.host(victim)]
            if not there:
                raise SystemExit("nothing ran on the host that was to be lost")
            running = where.rig.processes()
            begun = time.monotonic()
            agents[victim].kill()
            for name in there:
                for pid in running[name]:
                    os.kill(pid, signal.SIGKILL)
            elsewhere = where.rig.host(other)
            until(
                "all tasks elsewhere",
                lambda elsewhere=elsewhere: [t["host"] for t in where.well().values()] == [elsewhere] * MOVED,
            )
            took.append(time.monotonic() - begun)
            agents[victim] = where.rig.run("agent", host=victim)
            where.hosts_ready(2)
    return took


def report(what: str, samples: list[float], unit: float, of: str) -> None:
    figure = Figure(what, samples)
    median, worst = figure.median, max(samples)
    print(
        f"{what:24}{len(samples):>4} times: median {median:7.3f} s, longest {worst:7.3f} s; "
        f"{median / unit:.2f} and {worst / unit:.2f} times {of}"
    )


def main(names: list[str], rounds: int, lost_after: float) -> None:
    for name in names or NAMES:
        with fresh(name) as engine:
            report(f"{name}, killed", killed(engine, rounds), INTERVAL_SECONDS, "the checks' interval")
        if name == "embedded":
            continue
        with fresh(name) as engine:
            unit = LEASE_SECONDS + lost_after
            text = f"lease and lost_after ({LEASE_SECONDS:g} s + {lost_after:g} s)"
            report(f"{name}, host lost", lost(engine, rounds, lost_after), unit, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="STORE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lost-after", type=float, default=10.0)
    chosen = parser.parse_args()
    main(chosen.names, chosen.rounds, chosen.lost_after)
