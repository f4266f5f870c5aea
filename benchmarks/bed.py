"""A test bed for benchmarks: Sked as users run it, on a store of its own, and a watch on what really starts.

When something runs is told by the thing itself, not by Sked: a bash task writes the time of its first command, and
of a Docker container the engine's own start event counts. All times are seconds of this machine's wall clock.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil

from sked_core.surface.cli import run as sked_command

ROOT = Path(__file__).resolve().parent.parent
SKED = str(Path(sys.executable).with_name("sked"))
IMAGE = "sked-test/busybox:1"
PATIENCE = 180.0


def until(what: str, holds: Callable[[], Any]) -> Any:
    """Poll until ``holds`` gives something true, and return it. Times are told by what is waited for, so it polls
    seldom enough not to take the processor from what is measured."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up waiting for {what}")
        time.sleep(0.02)
    return found


def image() -> str:
    """The local busybox image, made if it is not there."""
    subprocess.run([ROOT / "scripts" / "busybox-image", IMAGE], check=True, stdout=subprocess.DEVNULL)
    return IMAGE


class Starts:
    """Start and die events of the engine's containers while the block runs: (action, name or service, time)."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._stream = client.events(decode=True, filters={"type": "container", "event": ["start", "die"]})
        self.seen: list[tuple[str, dict[str, str], float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for event in self._stream:
                self.seen.append((event["Action"], event["Actor"]["Attributes"], event["timeNano"] / 1e9))

    def times(self, action: str, label: str, value: str) -> list[float]:
        """When containers with this label did that."""
        return [at for did, labels, at in list(self.seen) if did == action and labels.get(label) == value]

    def close(self) -> None:
        self._stream.close()


class Bed:
    """``sked run combined`` on a fresh embedded store, or on the Consul at ``consul`` below a prefix of its own."""

    def __init__(self, consul: str = "") -> None:
        self.host = f"bench-{secrets.token_hex(3)}"
        self._folder = tempfile.TemporaryDirectory(prefix="sked-bench-")
        self.folder = Path(self._folder.name)
        self.times = self.folder / "times"
        self.times.mkdir()
        self.options = ["--backend", consul or f"sqlite://{self.folder / 'sked.db'}"]
        if consul:
            self.options += ["--prefix", self.host]
        state = ["--policy", "development", "--host", self.host, "--state-dir", str(self.folder / "agent")]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen([SKED, *self.options, "run", "combined", *state], stdout=log, stderr=log)
        until("the host", lambda: any(host["state"] == "ready" for host in self.items("hosts")))

    def sked(self, *arguments: str) -> str:
        """A command, in this process: what is measured is Sked, not the start of another Python."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = sked_command([*self.options, *arguments])
        if code:
            raise SystemExit(f"sked {' '.join(arguments)} ended with {code}; log in {self.folder}")
        return said.getvalue()

    def items(self, kind: str) -> list[dict[str, Any]]:
        return json.loads(self.sked(kind, "-o", "json"))["items"]

    def apply(self, name: str, container: dict[str, Any], **service: Any) -> float:
        """Declare one service; returns the time just before."""
        manifest = {
            "clusters": [{"name": f"c-{name}", "services": [name]}],
            "services": [{"name": name, "task_name": name, "task_version": 1, **service}],
            "task_definitions": [{"name": name, "version": 1, "containers": [{"name": "main", **container}]}],
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(manifest))
        begun = time.time()
        with contextlib.redirect_stderr(io.StringIO()):
            self.sked("apply", "-f", str(path))
        return begun

    def bash(self) -> dict[str, Any]:
        """A container that notes when it began, then sleeps, as one process."""
        note = f"echo $$ $EPOCHREALTIME >> {self.times}/$SKED_TASK_ID; exec sleep 100000"
        return {"type": "bash", "executor": {"start": note}}

    def docker(self, network: str = "none") -> dict[str, Any]:
        """A container that sleeps; without a network, which takes an engine longer than all the rest, unless told."""
        flags = [f"--net={network}"]
        return {"type": "docker", "executor": {"image": IMAGE, "cmd": ["sleep", "100000"], "flags": flags}}

    def began(self, task: str = "*") -> list[tuple[int, float]]:
        """(pid, time) of every start that bash tasks noted."""
        lines = [line.split() for path in self.times.glob(task) for line in path.read_text().splitlines()]
        return [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]

    def empty(self) -> None:
        """Scale everything to 0 and wait until it is gone."""
        for service in self.items("services"):
            if service["desired"]:
                self.sked("scale", service["name"], "0")
        until("an empty host", lambda: not self.items("tasks"))
        for path in self.times.glob("*"):
            path.unlink()

    def close(self) -> None:
        self.empty()
        self.process.terminate()
        self.process.wait(30)
        self._folder.cleanup()


@contextlib.contextmanager
def bed(consul: str = "") -> Iterator[Bed]:
    """A Bed that is cleaned up."""
    made = Bed(consul)
    try:
        yield made
    finally:
        made.close()


def consul_url() -> str:
    """The Consul that ``scripts/services`` started, or ``CONSUL_HTTP_ADDR``."""
    noted = ROOT / ".services" / "env"
    lines = noted.read_text().splitlines() if noted.exists() else []
    known = dict(line.split("=", 1) for line in lines) | dict(os.environ)
    if "CONSUL_HTTP_ADDR" not in known:
        raise SystemExit("no Consul is known: run scripts/services start")
    return "consul://" + known["CONSUL_HTTP_ADDR"].removeprefix("http://")


def resident_mb(pids: list[int]) -> float:
    """Memory of the processes in MB, pages that they share counted for each (RSS)."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6


def proportional_mb(pids: list[int]) -> float:
    """Memory of the processes in MB, shared pages divided among those that share them (PSS)."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6
