"""Where a row plays: a store of its own, real agents and schedulers on it, and the monitor that watches all of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from campaign.judge import Judge, Terms, Violation
from campaign.looking import identity
from campaign.monitor import Monitor
from campaign.rules_schedulers import undone
from campaign.samples import Instance, Sample
from rigs.consul import PrivateConsul
from rigs.etcd import PrivateEtcd
from rigs.local import Server, ask
from rigs.needs import ROOT, services_env
from rigs.sked import Proc, Rig, service
from sked_core.interfaces.store import Store
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

BUSYBOX = "sked-test/busybox:1"
SOCKET = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
SHORT_LOST_AFTER = "6s"
PATIENCE = 90.0
"""A bound for hangs, as in rigs.sked."""


class Stage:
    """``server``: a store of this stage alone. ``terms``: of its judge. ``backend``: another way to the store, for all.

    Whatever it does to a process it says to the monitor first: judges need to know whose doing it was."""

    def __init__(self, server: Any, folder: Path, terms: Terms, *, backend: str = "", engine: str = SOCKET) -> None:
        self.server, self.folder = server, folder
        self.rig = Rig(backend or server.url, folder)
        self.monitor = Monitor(server.url, engine, f"-{self.rig.mark}", self._living, Judge(terms))
        self.procs: dict[str, Proc] = {}
        self._options: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}
        self._number = 0
        self._fault_at: float | None = None
        self._ended = False
        self.recovery = 0.0
        self.mortal: set[str] = set()
        self._services: dict[str, None] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        self._cleanup.enter_context(self.monitor)
        self._cleanup.callback(self.rig.clean_up)
        return self

    def __exit__(self, *_: object) -> None:
        self.over()
        self._cleanup.close()

    def over(self) -> None:
        """Watch no more, and end all that runs. The watching ends first: that is nobody's fault. Whatever was done to
        it, no process of Sked says that it met a mistake of its own."""
        self.monitor.__exit__(None, None, None)
        self.rig.clean_up()
        for proc in () if self._ended else self.rig.procs:
            text = proc.log.read_text(errors="replace") if proc.log.exists() else ""
            for line in {line for line in text.splitlines() if "internal error" in line}:
                self.violations.append(Violation("A12", 0.0, f"{proc.log.name}: {line}"))
        self._ended = True

    def _living(self) -> dict[str, int]:
        return {name: proc.pid for name, proc in list(self.procs.items()) if proc.alive()}

    # --- Sked -------------------------------------------------------------------------------------------------------

    def agent(self, host: str, *options: str, **how: Any) -> Proc:
        """Start the agent of a host, the first time or again with the same options."""
        if options or how or host not in self._options:
            self._options[host] = (options, how)
        options, how = self._options[host]
        self.note("up", self.rig.host(host))
        self.procs[host] = self.rig.run("agent", *options, host=host, **how)
        return self.procs[host]

    def scheduler(self, name: str = "scheduler", *options: str, **how: Any) -> Proc:
        if options or how or name not in self._options:
            self._options[name] = (options, how)
        options, how = self._options[name]
        self.procs[name] = self.rig.run("scheduler", *options, **how)
        return self.procs[name]

    def kill(self, name: str) -> None:
        """SIGKILL an agent or a scheduler."""
        self._gone(name)
        self.procs[name].kill()

    def _gone(self, name: str) -> None:
        self._number += 1
        self.note("killed", f"{name} {self._number}")
        if "scheduler" not in name:
            self.note("down", self.rig.host(name))

    def ended(self, name: str) -> int:
        """Wait until one ends by itself, as a failpoint has it do; returns the exit code."""
        code = self.procs[name].wait()
        self._gone(name)
        return code

    def expect_end(self, name: str) -> None:
        """Say that one may end at any moment from now on."""
        self._gone(name)

    def start(self, name: str) -> Proc:
        return self.scheduler(name) if "scheduler" in name else self.agent(name)

    def pause(self, name: str) -> None:
        if "scheduler" not in name:
            self.note("asleep", self.rig.host(name))
        self.procs[name].signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        # Of a scheduler as well: who slept for longer than its lease lasts has the old one beside the new for a while.
        self.note("awake", self.rig.host(name))
        self.procs[name].signal(signal.SIGCONT)

    # --- the store --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Say that nobody reaches the store while the block runs; ending that is the block's own last step."""
        self.note("outage")
        yield
        self.note("answers")

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """The store as an operator's tool reaches it."""
        store = open_store(self.server.url, Plugins.load())
        try:
            yield store
        finally:
            store.close()

    # --- what is wanted, and what came of it ------------------------------------------------------------------------

    def note(self, what: str, subject: str = "") -> None:
        self.monitor.note(what, subject)

    def fault(self) -> None:
        """From now on it is counted how long recovering takes."""
        self._fault_at = time.monotonic()

    def run_service(self, name: str = "web", desired: int = 3, **more: Any) -> None:
        self._services[name] = None
        more.setdefault("cluster", {"services": list(self._services)})
        self.note("loosen")
        self.rig.apply(service(name, desired=desired, **more))

    def run_services(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """As ``run_service`` for each, in one commit: on a busy machine a command takes many seconds."""
        self._services |= dict.fromkeys(wanted)
        made = [service(name, **fields) for name, fields in wanted.items()]
        manifest = {kind: [one for each in made for one in each[kind]] for kind in ("services", "task_definitions")}
        self.note("loosen")
        self.rig.apply({"clusters": [{"name": "default", "services": list(self._services)}], **manifest})

    def scale(self, name: str, count: int) -> None:
        self.note("loosen")
        self.rig.sked("scale", name, str(count))

    def mortals(self, name: str) -> None:
        """Say that the tasks of a service end by themselves."""
        self.mortal.add(name)
        self.note("mortal", name)

    def until(self, what: str, holds: Callable[[Sample], Any], patience: float = PATIENCE) -> Any:
        """Wait until a sample makes ``holds`` true, and return what it gave."""
        deadline = time.monotonic() + patience
        number = -1
        while True:
            if self.monitor.failure is not None:
                raise self.monitor.failure
            if number != self.monitor.looks and self.monitor.history:
                number = self.monitor.looks
                found = holds(self.monitor.history[-1])
                if found:
                    return found
            if time.monotonic() > deadline:
                raise AssertionError(f"never: {what}\n{self.state()}\n{self.logs()}")
            time.sleep(0.05)

    def state(self) -> str:
        found = undone(self.monitor.history[-1], self.mortal) if self.monitor.history else []
        return "\n".join(["not as declared:", *found, *map(str, self.monitor.violations[:20])])

    def logs(self) -> str:
        return "\n".join(f"--- {proc.log.name}\n{proc.text()[-2500:]}" for proc in self.rig.procs)

    def settle(self, patience: float = PATIENCE) -> Sample:
        """Wait until everything is as declared, in three samples in a row, and say so."""
        calm = [0]

        def holds(sample: Sample) -> bool:
            calm[0] = 0 if undone(sample, self.mortal) else calm[0] + 1
            return calm[0] >= 3

        self.until("everything as declared", holds, patience)
        if self._fault_at is not None:
            self.recovery = max(self.recovery, time.monotonic() - self._fault_at)
            self._fault_at = None
        self.note("settled")
        return self.monitor.look_again()

    def hosts(self, *names: str) -> None:
        """Wait until the agents of these hosts are known and alive."""
        wanted = {f"hosts/live/{self.rig.host(name)}" for name in names}
        wanted |= {f"config/hosts/{self.rig.host(name)}" for name in names}
        self.until("hosts ready", lambda sample: sample.store is not None and wanted <= sample.store.keys())

    def says(self, name: str, words: str, patience: float = PATIENCE) -> None:
        """Wait until the log of a process holds these words."""
        self.until(f"{name} says {words!r}", lambda _: words in self.procs[name].text(), patience)

    def running(self, host: str = "") -> dict[str, Instance]:
        """What runs (on a host) in a sample from now, by task."""
        sample = self.monitor.look_again()
        return {one.task: one for one in sample.instances if host in ("", one.host.rpartition("-")[0])}

    def same(self, before: Mapping[str, Instance], seconds: float = 0.0) -> None:
        """What ran before runs on, in the very same processes and containers, and does so for a while."""
        deadline = time.monotonic() + seconds
        while True:
            lacking = set(before.values()) - self.monitor.look_again().instances
            assert not lacking, f"{lacking} ran before\n{self.logs()}"
            if time.monotonic() >= deadline:
                return
            time.sleep(0.2)

    def harm(self, one: Instance) -> None:
        """Kill a task's process or container behind its agent's back."""
        self.note("harm", one.mark)
        if one.first[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.first[0], signal.SIGKILL)
        else:
            self.docker("kill", one.mark)

    def docker(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def innocent(self, *command: str) -> subprocess.Popen[bytes]:
        """A process of nobody's, which has to live until the end."""
        process = subprocess.Popen(command or ("sleep", "1000"), start_new_session=True)
        self._cleanup.callback(process.wait)
        self._cleanup.callback(process.kill)
        self.note("innocent", " ".join(map(str, identity(process.pid))))
        return process

    def clean(self, action: Callable[[], object]) -> None:
        """Have something done in the end."""
        self._cleanup.callback(action)

    @property
    def violations(self) -> list[Violation]:
        return self.monitor.violations


def busybox() -> str:
    """The name of an image with nothing but busybox, made if it is not there."""
    if subprocess.run(["docker", "image", "inspect", BUSYBOX], capture_output=True, timeout=60).returncode:
        subprocess.run([ROOT / "scripts" / "busybox-image", BUSYBOX], check=True, timeout=120)
    return BUSYBOX


def docker_service(desired: int = 2, **more: Any) -> dict[str, Any]:
    """Fields of a service of containers that sleep, for ``run_service``; ``executor`` goes into its executor."""
    executor = {"image": busybox(), "cmd": ["sleep", "1000"], **more.pop("executor", {})}
    return {"desired": desired, "container": {"type": "docker", "executor": executor}, **more}


@contextlib.contextmanager
def serving(kind: str, folder: Path, **settings: object) -> Iterator[Any]:
    """A Consul or an etcd of one's own."""
    binary = services_env()[f"{kind.upper()}_BIN"]
    server: Server = (PrivateConsul if kind == "consul" else PrivateEtcd)(binary, folder / kind, settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def sessions(http: str) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = json.loads(ask(f"{http}/v1/session/list") or b"[]")
    return found


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def in_thread(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
