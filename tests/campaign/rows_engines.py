"""Rows about Docker engines: killed, restarted, paused, and what others do to containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from campaign.judge import Terms
from campaign.rows import row
from campaign.stage import Stage, busybox, docker_service, serving
from rigs.local import Server, end_noted
from rigs.needs import missing


class Engine(Server):
    """A dockerd of one's own, with its own containerd, data and socket, without a network. ``live_restore``: containers
    outlive it."""

    def __init__(self, folder: Path, *, live_restore: bool) -> None:
        self.socket = folder / "docker.sock"
        binary = shutil.which("dockerd") or missing("docker", "there is no dockerd program")
        command = [
            # Without a network of its own it would remove the bridge of the machine's engine, as it wants none.
            "unshare", "--net", binary, "--bridge=none", "--iptables=false", "--ip6tables=false", f"--host=unix://{self.socket}",
            f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'dockerd.pid'}",
            *(["--live-restore"] if live_restore else []),
        ]  # fmt: skip
        super().__init__("dockerd", command, folder, self._answers)

    def _answers(self) -> bool:
        return self.docker("version").returncode == 0

    def docker(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "--host", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, input=data, capture_output=True, timeout=120)

    def start(self, timeout: float = 60) -> None:
        # What a kill left would keep it from starting, where its number was given to another process since.
        (self.folder / "dockerd.pid").unlink(missing_ok=True)
        super().start(timeout)

    def kill(self) -> None:
        super().kill()
        if not self.keep:
            self._end_all()

    keep = True
    """Whether its containers and its containerd are to outlive a kill."""

    def _end_all(self) -> None:
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
        subprocess.run(
            f"umount -l $(awk '$2 ~ \"^{self.folder}\" {{print $2}}' /proc/mounts)", shell=True, capture_output=True
        )


@contextlib.contextmanager
def engine(folder: Path, *, live_restore: bool) -> Iterator[Engine]:
    """One with the test image in it."""
    saved = subprocess.run(["docker", "save", busybox()], capture_output=True, check=True, timeout=120).stdout
    # A short path: that of a socket has 107 bytes at most.
    found = Engine(Path(f"/tmp/sked-engine-{os.getpid()}-{time.monotonic_ns() % 10**6}"), live_restore=live_restore)
    try:
        found.start()
        loaded = found.docker("load", data=saved)
        assert loaded.returncode == 0, loaded.stderr
        yield found
    finally:
        with contextlib.suppress(AssertionError, OSError):
            found.resume()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ids = found.docker("ps", "--all", "--quiet").stdout.decode().split()
            found.docker("rm", "--force", *ids) if ids else None
        found.keep = False
        found.kill()
        end_noted(found.folder / "pid")
        shutil.rmtree(found.folder, ignore_errors=True)


def no_network() -> dict[str, object]:
    return docker_service(2, executor={"flags": ["--network=none"]})


def on_an_engine(outer: Stage, *, live_restore: bool, kill: bool) -> None:
    """The engine goes and comes back, twice."""
    with (
        engine(outer.folder, live_restore=live_restore) as own,
        serving("consul", outer.folder / "inner") as server,
        Stage(server, outer.folder, Terms(starts_a_minute=12), engine=str(own.socket)) as stage,
    ):
        stage.agent("a", more={"DOCKER_HOST": f"unix://{own.socket}"})
        stage.scheduler()
        stage.hosts("a")
        stage.run_service("box", **no_network())
        stage.run_service("web", desired=1)
        stage.settle()
        for _ in range(2):
            before = stage.running()
            stage.note("deaf")
            if not live_restore:
                for one in before.values():
                    if "/" not in one.mark:
                        stage.note("harm", one.mark)
            if kill:
                own.kill()
            else:
                own._signal(signal.SIGTERM)
                assert own._process is not None
                own._process.wait(60)
                own._process = None
            time.sleep(2)
            own.start()
            stage.note("hears")
            stage.fault()
            if live_restore:
                stage.same(before, 5.0)
            stage.settle()
        ran = stage.docker("--host", f"unix://{own.socket}", "ps", "--all", "--quiet").split()
        assert len(ran) == 2, "no copies"
    outer.violations.extend(stage.violations)
    outer.recovery = max(outer.recovery, stage.recovery)


@row("F30", "the engine is killed, containers live on (live-restore)", needs=("docker",))
def engine_killed(stage: Stage) -> None:
    on_an_engine(stage, live_restore=True, kill=True)


@row("F30b", "the engine is restarted, and its containers end with it", needs=("docker",))
def engine_restarted(stage: Stage) -> None:
    on_an_engine(stage, live_restore=False, kill=False)


@row("F31", "the engine hangs", needs=("docker",))
def engine_hangs(outer: Stage) -> None:
    with (
        engine(outer.folder, live_restore=True) as own,
        serving("consul", outer.folder / "inner") as server,
        Stage(server, outer.folder, Terms(), engine=str(own.socket)) as stage,
    ):
        stage.agent("a", more={"DOCKER_HOST": f"unix://{own.socket}"})
        stage.scheduler()
        stage.hosts("a")
        stage.run_service("box", **no_network())
        stage.run_service("web", desired=1)
        stage.settle()
        before = stage.running()
        stage.note("deaf")
        own.pause()
        time.sleep(3)
        stage.note("due", "default-quick-1-0 45")
        stage.run_service("quick", desired=1)
        stage.note("loosen")
        stage.run_service("box", **{**no_network(), "desired": 3})
        stage.until("a task of bash runs", lambda sample: any("quick" in one.task for one in sample.instances), 60)
        stage.same(before, 25.0)
        own.resume()
        stage.note("hears")
        stage.fault()
        stage.settle()
        stage.same(before)
        ran = stage.docker("--host", f"unix://{own.socket}", "ps", "--all", "--quiet").split()
        assert len(ran) == 3, "what had been asked of it before came up once"
    outer.violations.extend(stage.violations)
    outer.recovery = max(outer.recovery, stage.recovery)


@row("F32", "containers are removed, killed, stopped and renamed behind the agent's back", needs=("docker",))
def containers_meddled_with(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service("box", **docker_service(4))
    stage.settle()
    for number, how in enumerate((["rm", "--force"], ["kill"], ["stop", "-t", "0"])):
        one = stage.running()[f"default-box-1-{number}"]
        stage.note("harm", one.mark)
        stage.docker(*how, one.mark)
        stage.fault()
        stage.until("it is gone", lambda sample, one=one: one not in sample.instances)
        stage.settle()
    renamed = stage.running()["default-box-1-3"]
    stage.docker("rename", renamed.mark, f"other-{stage.rig.mark}")
    stage.same({renamed.task: renamed}, 3.0)
    stage.scale("box", 1)
    stage.settle()


@row("F33", "strangers have the name and the port that a task needs", needs=("docker",))
def strangers_in_the_way(stage: Stage) -> None:
    port = 24871
    stage.agent("a", "--port-range", f"{port}-{port + 19}")
    stage.agent("b")
    stage.scheduler()
    stage.hosts("a", "b")
    squatter = stage.innocent("python3", "-m", "http.server", "--bind", "127.0.0.1", str(port))
    stage.run_service("box", **docker_service(2))
    stage.settle()
    names = {
        one.task: (one, stage.docker("inspect", "--format", "{{.Name}}", one.mark).lstrip("/"))
        for one in stage.running().values()
    }
    taken = []
    stage.scale("box", 0)
    stage.settle()
    for _, name in names.values():
        stranger = stage.docker("run", "--detach", "--name", name, busybox(), "sleep", "1000")
        stage.clean(lambda stranger=stranger: stage.docker("rm", "--force", stranger, check=False))
        stage.monitor.look_again()
        stage.note("stranger", stranger)
        taken.append(stranger)
    stage.mortals("box")  # each host rejects the one task whose name is taken there, and may take the other
    stage.scale("box", 2)
    stage.mortals("fixed")  # both hosts are this machine: nobody has its port
    stage.run_service("fixed", desired=1, port=port)
    stage.fault()
    stage.settle()
    # In their own time: one host rejects a task for the name, and it goes to the other.
    stage.until(
        "both run somewhere or are rejected with the reason",
        lambda sample: (
            sum("box" in one.task for one in sample.instances) == 2
            or any(
                b"that Sked did not create" in one.value for key, one in (sample.store or {}).items() if "box" in key
            )
        ),
    )
    assert squatter.poll() is None
    assert not any("fixed" in one.task for one in stage.monitor.look_again().instances)
    for stranger in taken:
        assert stage.docker("inspect", "--format", "{{.State.Running}}", stranger) == "true"
