"""What the kit of outside schedulers works on: real agents, a scheduler of Sked beside them, a service to place."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from sked_core.client.looking.linting import lint
from sked_core.client.session import Session
from sked_core.client.settings import resolve
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Delete, Put, Store
from sked_core.model import keys
from sked_core.model.codec import decode, patch
from sked_core.model.types import Presence, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.known_types import know_types
from sked_core.runtime.plugins.registry import Plugins

HOSTS = ("a", "b", "c")
MIN, MAX = 2, 7
LOST_AFTER = "2"
"""Seconds: what the scheduler is told in its environment."""
_MAIN = "import sys; from sked_core.surface.cli import main; sys.argv[0] = 'sked'; main()"


class Bench:
    """Three hosts with their agents, one scheduler process of Sked with a service of its own, and the service ``far``,
    which is for the scheduler under test. Everything is named after ``mark``, so that benches can share a store."""

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        folder: Path,
        *,
        prefix: str = "",
        patience: float = 120.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """``command``: of the scheduler; ``{name}`` in it stands for the name that services give. ``patience``: seconds
        within which everything has to have happened. ``env``: more variables, for the scheduler alone."""
        self.command, self.url, self.folder, self.patience, self.more = command, url, folder, patience, dict(env or {})
        self.mark = secrets.token_hex(3)
        self.name, self.cluster = f"kit-{self.mark}", f"kit-{self.mark}"
        self.prefix = prefix
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SKED_")}
        self.env = clean | {"SKED_BACKEND": url, "SKED_PREFIX": prefix, "SKED_POLICY": "development"}
        self.env["XDG_STATE_HOME"] = str(folder / "state")
        self.schedulers: list[subprocess.Popen[bytes]] = []
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._others: list[subprocess.Popen[bytes]] = []
        settings = resolve(backend=url)
        self._plugins = Plugins.load(settings.plugins)
        self.store: Store = open_store(url, self._plugins, prefix)
        self._health = Session(self.store, self._plugins, settings, "the kit").health()
        self.version = 1
        self._wrong: list[str] = []
        self._looking = threading.Lock()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    # --- processes -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start all but the scheduler under test. Raises AssertionError where the store is not empty."""
        known = sorted(key for key in self.store.read("").entries if not key.startswith(("meta/", "events/")))
        assert not known, f"the kit needs a store, or a --prefix, of its own; there is {known[0]}"
        self._others.append(self._sked_process("scheduler", "run", "scheduler"))
        for host in HOSTS:
            self.start_agent(host)
        self.until("three agents live", lambda: len(self.store.read(keys.LIVE).entries) == len(HOSTS))
        know_types()  # before the watcher and the checks decode tasks at once
        self._watcher.start()

    def close(self) -> None:
        """End all that was started, with all that it started, and remove what it left in the store."""
        self._done.set()
        if self._watcher.is_alive():
            self._watcher.join(20)
        with contextlib.suppress(Unavailable):  # the processes have to end in any case
            self.clear()
        deadline = time.monotonic() + min(self.patience, 60.0)
        while self.processes("") and time.monotonic() < deadline:
            time.sleep(0.1)  # agents stop their tasks, and take them out of service discovery, which has no prefix
        for process in (*self.schedulers, *self.agents.values(), *self._others):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in (*self.schedulers, *self.agents.values(), *self._others):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait(20)
        for pids in self.processes("").values():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        while left := list(self.store.read("").entries):
            self.store.commit([Delete(key) for key in left[: self.store.max_ops]])
        self._health.close()
        self.store.close()

    def clear(self) -> None:
        """End the scheduler's processes, and begin anew with what is wanted and issued."""
        with self._looking:  # what stands there while it is being cleared away is nobody's fault
            self._clear()
            self._wrong = []

    def begin_anew(self) -> None:
        """After a check that has failed: of what it leaves nothing is there for the next one to stumble over."""
        self.clear()
        deadline = time.monotonic() + self.patience
        while self.processes("") and time.monotonic() < deadline:
            time.sleep(0.1)  # agents stop what is issued no more
        for host, agent in self.agents.items():
            if agent.poll() is not None:
                self.start_agent(host)

    def _clear(self) -> None:
        for process in self.schedulers:
            process.kill()
            process.wait(20)
        for prefix in (
            keys.SERVICES,
            keys.CLUSTERS,
            keys.STATE,
            "status/",
            "scheduling/",
            keys.LOCKS,
            keys.ROLLOUT_HISTORY,
            keys.MARKS,
        ):
            for key in self.store.read(prefix).entries:
                if not key.startswith(keys.SCHEDULERS):
                    self.store.commit([Delete(key)])

    def start(self) -> subprocess.Popen[bytes]:
        """One more process of the scheduler."""
        more = {"LOST_AFTER": LOST_AFTER, "TMPDIR": str(self.folder)}
        command = [part.replace("{name}", self.name) for part in self.command]
        self.schedulers.append(self._process(f"scheduler-{len(self.schedulers)}", command, self.env | more | self.more))
        return self.schedulers[-1]

    def running(self) -> subprocess.Popen[bytes]:
        """A process of the scheduler that runs; one is started where there is none."""
        alive = [one for one in self.schedulers if one.poll() is None]
        return alive[0] if alive else self.start()

    def start_agent(self, host: str) -> None:
        options = ("--host", self.host(host), "--state-dir", str(self.folder / f"agent-{host}"))
        self.agents[host] = self._sked_process(f"agent-{host}", "run", "agent", *options)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While Sked's own scheduler is paused: it tidies up after others, too."""
        try:
            for one in self._others:
                one.send_signal(signal.SIGSTOP)
            yield
        finally:
            for one in self._others:
                one.send_signal(signal.SIGCONT)

    def _sked_process(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._process(f"sked-{log}", [sys.executable, "-c", _MAIN, *arguments], self.env)

    def _process(self, log: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env)

    def sked(self, *arguments: str, stdin: str = "") -> str:
        """What a command that has to work prints, warnings included."""
        command = [sys.executable, "-c", _MAIN, *arguments]
        ran = subprocess.run(
            command, input=stdin, env=self.env, capture_output=True, text=True, timeout=self.patience, check=False
        )
        assert ran.returncode == 0, f"sked {' '.join(arguments)}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    # --- what is wanted ------------------------------------------------------------------------------------------

    def host(self, name: str) -> str:
        return f"{name}-{self.mark}"

    def apply(self, version: int = 1, **more: Any) -> str:
        """`sked apply` of ``far``, as ``declare`` has it; returns what the command says."""
        return self.sked("apply", "-f", "-", stdin=json.dumps(self._manifest("far", version=version, **more)))

    def declare(self, service: str, **more: Any) -> None:
        """Declare a service of the scheduler's, unless ``more`` says otherwise, as any program may: by writing it.
        ``definition`` goes into the task definition."""
        said = self._manifest(service, **more)
        (cluster,), (wanted,), (definition,) = said["clusters"], said["services"], said["task_definitions"]
        key = keys.task_definition(service, definition["version"])
        written = {keys.cluster(self.cluster): cluster, keys.service(service): wanted, key: definition}
        self.store.commit([Put(key, json.dumps(one).encode()) for key, one in written.items()])

    def forget(self, service: str) -> None:
        """Delete a service, and with it its place in the cluster."""
        key = keys.cluster(self.cluster)
        cluster = json.loads(self.store.read(key).entries[key].value)
        cluster["services"].remove(service)
        self.store.commit([Delete(keys.service(service)), Put(key, json.dumps(cluster).encode())])

    def mark_host(self, host: str, state: str) -> None:
        """``cordoned``, ``draining``, or empty for neither."""
        key = keys.mark(self.host(host))
        self.store.commit([Put(key, json.dumps({"state": state}).encode()) if state else Delete(key)])

    def _manifest(
        self, service: str, *, start: str = "exec sleep 1000", version: int = 1, **more: Any
    ) -> dict[str, list[dict[str, Any]]]:
        container = {"name": service, "type": "bash", "executor": {"start": start}}
        definition = {"name": service, "version": version, "provide_port": True, "containers": [container]}
        definition |= more.pop("definition", {})
        wanted = {"name": service, "task_name": service, "task_version": version, "scheduler": self.name}
        wanted |= {"min": 0, "max": MAX} | more
        listed = self.store.read(keys.cluster(self.cluster)).entries
        cluster = json.loads(next(iter(listed.values())).value) if listed else {"name": self.cluster, "services": []}
        cluster["services"] = sorted({*cluster["services"], service})
        return {"clusters": [cluster], "services": [wanted], "task_definitions": [definition]}

    def settled(self, count: int) -> None:
        """Have ``far`` with so many tasks, all of them well, as the beginning of a check."""
        self.running()
        if keys.service("far") not in self.store.read(keys.SERVICES).entries:
            self.declare("far", version=self.version, desired=count, min=MIN)
        else:
            self.want(count)
        self.until(f"{count} tasks of it are well", self.well(count))

    def want(self, count: int) -> None:
        """Change the count as any program may: by one write."""
        key = keys.service("far")
        self.store.commit([Put(key, patch(self.store.read(key).entries[key].value, desired=count))])

    # --- what there is -------------------------------------------------------------------------------------------

    def tasks(self, service: str = "far") -> list[Task]:
        """Of the service, all that stand in the store. Of what can't be read the watcher tells."""
        found = []
        for entry in self.store.read(keys.TASKS).entries.values():
            with contextlib.suppress(InvalidValue):
                found.append(decode(entry.value, Task))
        return [one for one in found if one.service == service]

    def hosts(self) -> set[str]:
        """The short names of hosts that have tasks of it."""
        return {one.host.rpartition("-")[0] for one in self.tasks()}

    def well(self, count: int, service: str = "far") -> Callable[[], bool]:
        """A condition: there are exactly so many tasks, all of them are to run, and Sked takes them for healthy."""

        def holds() -> bool:
            found = self.tasks(service)
            if len(found) != count or not all(one.scheduled and not one.rejected for one in found):
                return False
            health = self._health.health([(self.cluster, service)])
            return all(one.id in health and health[one.id].healthy for one in found)

        return holds

    def presences(self) -> dict[str, str]:
        """The scheduler's processes as they are registered: their keys, and the leases that these are bound to."""
        found = self.store.read(keys.SCHEDULERS).entries
        return {key: one.lease for key, one in found.items() if self.name in decode(one.value, Presence).schedulers}

    def end_lease(self, lease_id: str) -> None:
        """End a lease of another process at once."""
        lease = copy.copy(self.store.grant(60.0))  # its own is left to expire
        object.__setattr__(lease, "id", lease_id)
        lease.revoke()

    def processes(self, service: str = "far") -> dict[str, list[int]]:
        """Pids of all that runs for tasks of the service (of any, if it is empty), by task id."""
        found: dict[str, list[int]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                env = process.environ()
                if env.get("SKED_HOST", "").endswith(f"-{self.mark}") and service in ("", env.get("SKED_SERVICE")):
                    found.setdefault(env["SKED_TASK_ID"], []).append(process.pid)
        return found

    def status(self, service: str = "far") -> dict[str, Any]:
        """What the scheduler has said of the service in this cluster; empty where it has said nothing."""
        key = keys.service_status(service)
        entry = self.store.read(key).entries.get(key)
        said: dict[str, Any] = json.loads(entry.value)["clusters"].get(self.cluster, {}) if entry else {}
        return said

    # --- judging -------------------------------------------------------------------------------------------------

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        """Look until ``holds`` gives something true, and return that. Raises AssertionError with all that is known."""
        deadline = time.monotonic() + self.patience
        while not (found := holds()):
            self.judge()
            assert time.monotonic() < deadline, f"never: {what}{self.told()}"
            time.sleep(0.1)
        return found

    def judge(self) -> None:
        """Raises AssertionError if anything has been seen since the last time that must never be."""
        wrong, self._wrong = self._wrong, []
        assert not wrong, f"{wrong[0]}{self.told()}"

    def no_findings(self) -> None:
        """As `sked state check` has it."""
        self.until("nothing is wrong with the records", lambda: not self._findings())

    def _findings(self) -> list[str]:
        return [f"{one.key}: {one.what}" for one in lint(self.store.read("").entries)]

    def told(self) -> str:
        """What stands in the store, and the ends of the scheduler's logs."""
        lines = [f"\n{one.id} on {one.host}: scheduled {one.scheduled}, rejected {one.rejected} {one.reject_reason}"
                 for one in self.tasks()]  # fmt: skip
        lines.append(f"\nstatus/services/far: {json.dumps(self.status())}")
        lines += [f"\n{one}" for one in self._findings()]
        for log in sorted(self.folder.glob("scheduler-*.log")):
            lines.append(f"\n--- {log.name}\n{log.read_text(errors='replace')[-2000:] or '(it has written nothing)'}")
        return "".join(lines)

    def _watch(self) -> None:
        """Of each state that is seen: never more than MAX tasks, no port twice, both keys of every task or none."""
        store = open_store(self.url, self._plugins, self.prefix)
        while not self._done.is_set():
            with self._looking:
                self._wrong += self._seen(store)
            self._done.wait(0.02)
        store.close()

    def _seen(self, store: Store) -> Iterator[str]:
        try:
            found = store.read(keys.STATE).entries
            by_id = {key: decode(one.value, Task) for key, one in found.items() if key.startswith(keys.TASKS)}
        except Unavailable:
            return  # says nothing
        except InvalidValue as error:
            yield f"what stands below state/ can't be read: {error}"
            return
        far = [one for one in by_id.values() if one.service == "far" and not one.rejected]
        if len(far) > MAX:
            yield f"{len(far)} tasks are issued at once, where {MAX} is the most"
        for key, one in by_id.items():
            if key != keys.task(one.id):
                yield f"{key} holds the task {one.id}: an instance has one task, under its own id"
        ports = Counter((one.host, one.port) for one in by_id.values() if one.scheduled and not one.rejected)
        yield from (f"{host} has given port {port} to two tasks" for (host, port), count in ports.items() if count > 1)
        by_host = {key for key in found if key.startswith(keys.HOST_TASKS)}
        for key in by_host ^ {keys.host_task(one.host, one.id) for one in by_id.values()}:
            yield f"{key} and its task below state/tasks/ were not written or removed together"
