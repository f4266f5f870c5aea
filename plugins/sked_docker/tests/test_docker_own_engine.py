"""Engines of our own: one that is killed and comes back, one with mounts of its own, and an agent without root."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from rigs.needs import missing, program
from sked_core.plugin import Handle, Policy, Rejected, State, Task
from sked_docker.policy import DockerPolicy

PATIENCE = 90.0
SLEEP = {"cmd": "sleep 1000", "flags": ["--network=none"]}
NOBODY = 65_534


class OwnEngine:
    """A dockerd, with a containerd beside it, with folders of their own below ``folder``. As they are installed, so
    containers live on when dockerd does not. ``apart``: with mounts of their own."""

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self.folder, self._apart = folder, apart
        self.socket = folder / "docker.sock"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        below = str(self.folder / "containerd")
        if self._containerd is None:
            folders = [f"--{name}={below}/{name}" for name in ("root", "state")]
            unshared = [program("unshare", "util-linux"), "--mount", "--propagation", "private"] if self._apart else []
            self._containerd = self._run(*unshared, program("containerd"), *folders, f"--address={below}.sock")
            until(Path(f"{below}.sock").exists, self._words)
        joined = (
            [program("nsenter", "util-linux"), f"--target={self._containerd.pid}", "--mount"] if self._apart else []
        )
        self._process = self._run(
            # In a network of its own: it wants no bridge, and would remove that of this machine's engine.
            *(*joined, program("unshare", "util-linux"), "--net", program("dockerd", "docker.io")),
            *(f"--host=unix://{self.socket}", f"--containerd={below}.sock", "--live-restore"),
            *("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
            *(f"--{name}={self.folder / name}" for name in ("data-root", "exec-root", "pidfile")),
        )
        until(self._answers, self._words)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._words()
        return self.docker("version", check=False).returncode == 0

    def _words(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def docker(self, *words: str, check: bool = True, **rest: Any) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", f"--host=unix://{self.socket}", *words]
        return subprocess.run(command, capture_output=True, check=check, timeout=PATIENCE, **rest)

    def among_its_mounts(self, *command: str) -> bytes:
        """What a command says that sees the files that the engine sees."""
        assert self._containerd is not None
        enter = [program("nsenter", "util-linux"), f"--target={self._containerd.pid}", "--mount"]
        return subprocess.run([*enter, *command], capture_output=True, check=True, timeout=PATIENCE).stdout

    def kill(self) -> None:
        """SIGKILL: nothing is told to the containers."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def end(self) -> None:
        """With everything that it runs."""
        if self._process is not None and self._process.poll() is None:
            ids = self.docker("ps", "-aq", check=False).stdout.decode().split()
            if ids:
                self.docker("rm", "--force", *ids, check=False)
        for process in filter(None, (self._process, self._containerd)):
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        for left in psutil.process_iter():  # shims of containers that could not be removed
            with contextlib.suppress(psutil.Error):
                if left.name().startswith("containerd-shim") and f"{self.folder}/" in " ".join(left.cmdline()):
                    left.kill()


def until(condition: Callable[[], Any], words: Callable[[], str] = lambda: "") -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"the condition did not come true in time {words()}"
        time.sleep(0.1)
    return value


@pytest.fixture
def own_engine(busybox_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OwnEngine]]:
    """Call it for an engine that has the image and that executors find from now on. A short path: sockets need one."""
    if os.geteuid() != 0:
        missing("root", "only root can start an engine")
    made: list[OwnEngine] = []

    def start(*, apart: bool = False) -> OwnEngine:
        folder = Path(tempfile.mkdtemp(prefix="sked-e"))
        folder.chmod(0o755)
        made.append(OwnEngine(folder, apart=apart))
        made[-1].start()
        image = subprocess.run(["docker", "save", busybox_image], capture_output=True, check=True, timeout=PATIENCE)
        made[-1].docker("load", input=image.stdout)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{made[-1].socket}")
        return made[-1]

    yield start
    monkeypatch.undo()
    for engine in made:
        engine.end()
        for mount in [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()][::-1]:
            if mount.startswith(f"{engine.folder}/"):
                subprocess.run(["umount", "--lazy", mount], check=False, timeout=PATIENCE)
        shutil.rmtree(engine.folder, ignore_errors=True)


def start(executor: Any, task: Task) -> Handle:
    handle: Handle = executor.start(task, task.task_definition.containers[0], {})
    return handle


def allowing(**gates: Any) -> Policy:
    return Policy(sections={"docker": DockerPolicy(**gates)})


def test_a_container_with_a_held_path_outlives_agent_and_engine(
    make_executor: Any, make_task: Any, tmp_path: Path, own_engine: Callable[..., OwnEngine]
) -> None:
    (tmp_path / "allowed" / "x").mkdir(parents=True)
    (tmp_path / "allowed" / "x" / "f").write_text("fine")
    engine = own_engine()
    executor = make_executor(policy=allowing(volumes=[f"{tmp_path}/allowed:rw"]))
    handle = start(executor, make_task(SLEEP | {"volumes": [f"{tmp_path}/allowed/x:/d"]}))
    executor.close()
    before = json.loads(engine.docker("inspect", handle.ref).stdout)[0]["State"]["Pid"]
    engine.kill()
    engine.start()
    adopted = make_executor(policy=Policy())
    assert until(lambda: adopted.recover().get(handle)).state is State.RUNNING
    assert json.loads(engine.docker("inspect", handle.ref).stdout)[0]["State"]["Pid"] == before
    assert engine.docker("exec", handle.ref, "cat", "/d/f").stdout == b"fine"
    adopted.stop(handle, 0)
    assert (tmp_path / "allowed" / "x" / "f").read_text() == "fine"


def test_an_engine_with_mounts_of_its_own_has_paths_looked_up_and_held_among_these(
    make_executor: Any, make_task: Any, tmp_path: Path, own_engine: Callable[..., OwnEngine]
) -> None:
    """As with an agent under systemd's protections, the other way round."""
    allowed = tmp_path / "allowed"
    (allowed / "x").mkdir(parents=True)
    (allowed / "x" / "f").write_text("the agent's")
    (allowed / "link").symlink_to("x")
    engine = own_engine(apart=True)
    script = f"""
set -e
mount -t tmpfs sked-test {allowed}
mkdir {allowed}/x
printf "the engine's" >{allowed}/x/f
ln -s /etc {allowed}/link
"""
    engine.among_its_mounts("sh", "-c", script)
    executor = make_executor(policy=allowing(volumes=[str(allowed)]))
    handle = start(executor, make_task(SLEEP | {"volumes": [f"{allowed}/x:/d:ro"]}))
    assert engine.docker("exec", handle.ref, "cat", "/d/f").stdout == b"the engine's"
    linked = make_task(SLEEP | {"volumes": [f"{allowed}/link:/d:ro"]}, service="linked")
    assert executor.denials(linked, linked.task_definition.containers[0]) == []  # here it leads to x
    with pytest.raises(Rejected, match="which leads to /etc,"):
        start(executor, linked)
    assert "held" not in engine.among_its_mounts("cat", "/proc/self/mounts").decode()
    assert Path.cwd().exists()
    assert (allowed / "x" / "f").read_text() == "the agent's"  # all else of this process sees what it saw


AGENT = """
import json, os, sys
from pathlib import Path
# Python itself may be where only root can read it: what is imported on demand comes first.
import docker, docker.auth, docker.errors, docker.transport, docker.types, docker.utils, encodings.idna
import requests.exceptions, urllib3.exceptions
import sked_core.plugin, sked_docker.executor
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.plugin import ExecutorContext, Policy, Rejected
from sked_docker.executor import DockerExecutor
from sked_docker.policy import DockerPolicy
def start(name, volumes, *entries):
    policy = Policy(sections={{"docker": DockerPolicy(volumes=[*entries])}})
    context = ExecutorContext(host="h", store_uid="u", state_dir=Path({folder!r}) / "state", policy=policy)
    spec = {{"image": {image!r}, "cmd": "sleep 1000", "flags": ["--network=none"], "volumes": volumes}}
    container = Container(name="c", type="docker", executor=spec)
    definition = TaskDefinition(name=name, version=1, containers=[container])
    task = Task(cluster=Cluster(name="default"), task_definition=definition, service=name, host="h", port=0)
    try:
        return DockerExecutor(context).start(task, container, {{}}).ref
    except Rejected as error:
        return f"rejected: {{error}}"
print(json.dumps([
    start("plain", []),
    start("named", ["/usr/share:/d:ro"], "/usr/share"),
    start("below", ["/usr/share/doc:/d:ro"], "/usr/share"),
]))
"""


def test_an_agent_without_root_finds_the_engine_of_its_user_and_mounts_what_is_named(
    busybox_image: str, own_engine: Callable[..., OwnEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = own_engine()
    shutil.chown(engine.socket, NOBODY, NOBODY)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    env = clean | {"XDG_RUNTIME_DIR": str(engine.folder), "HOME": "/nonexistent"}
    code = AGENT.format(nobody=NOBODY, folder=str(engine.folder), image=busybox_image)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    plain, named, below = json.loads(done.stdout)
    assert below.startswith("rejected: host path /usr/share/doc can't be held")
    client = docker.APIClient(base_url=f"unix://{engine.socket}", version="auto")
    assert {row["Id"] for row in client.containers()} == {plain, named}
    (mount,) = client.inspect_container(named)["Mounts"]
    assert (mount["Source"], mount["RW"]) == ("/usr/share", False)
    client.close()
