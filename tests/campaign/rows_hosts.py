"""Rows about hosts: tasks that crash, flap and flood; disks, limits, clocks; plugins and targets that hang."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from campaign.judge import Terms
from campaign.rows import row
from campaign.samples import Sample, below, issued, task_of
from campaign.stage import Stage, docker_service
from campaign.wrong_executors import WRONG
from rigs.artifacts import FAULTS, Site, check_faults, fault_path
from rigs.artifacts import serving as serving_site
from sked_core.model import keys

HERE = Path(__file__).resolve().parent


@row("F37", "forty tasks crash as soon as they are started", needs=("docker",), terms=Terms(starts_a_minute=10))
def crash_loops(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service("well", desired=1)
    stage.mortals("crash")
    stage.mortals("box")
    starts = stage.folder / "starts"
    stage.run_service("crash", desired=35, start=f"echo $EPOCHREALTIME >>{starts}; exit 3")
    stage.run_service("box", **docker_service(5, executor={"cmd": ["false"]}))
    stage.fault()
    stage.until("they were tried", lambda sample: len(below(sample.store or {}, keys.FAILURES)) >= 40, 150)
    before, written = _writes(stage), time.monotonic()
    time.sleep(25)
    rate = (_writes(stage) - before) / (time.monotonic() - written)
    assert rate < 40, f"{rate:.0f} changes of the store a second"
    sample = stage.monitor.history[-1]
    assert len([one for one in (*sample.instances, *sample.ended) if "/" not in one.mark]) <= 5
    # 1, 2, 4, 8, 16 s lie between starts, a quarter less at most: seven starts in a minute.
    assert len(starts.read_text().split()) <= 35 * 10
    assert any("well" in one.task for one in sample.instances)
    for name in ("crash", "box"):
        stage.scale(name, 0)
    stage.settle(120)


def _writes(stage: Stage) -> int:
    return stage.monitor.look_again().revision


@row("F38", "the health of a task comes and goes with every check", store="etcd")
def flapping_health(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    flag = stage.folder / "ill"
    check = {"script": f"test ! -e {flag}", "interval": "1s"}
    stage.run_service(desired=2, container={"checks": [check]}, grace_period="10s")
    stage.settle()
    before = stage.running()
    until = time.monotonic() + 25
    while time.monotonic() < until:
        flag.touch()
        time.sleep(1.0)
        flag.unlink()
        time.sleep(1.5)
    stage.same(before)
    stage.fault()
    stage.until("healthy", lambda _: stage.rig.healthy(2)())
    stage.settle()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True, timeout=30
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


@row("F39", "the disk with the agent's state, its logs and its tasks' folders is full")
def disk_full(stage: Stage) -> None:
    folder = stage.folder / "agent-a"
    with small_disk(folder, "2m"):
        agent = stage.agent("a")
        stage.scheduler()
        stage.hosts("a")
        stage.run_service(desired=3, start="while :; do echo a line of some length; sleep 0.05; done")
        stage.settle()
        before = stage.running()
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        stage.mortals("more")
        stage.run_service("more", desired=1)
        stage.same(before, 8.0)
        assert agent.alive()
        stage.kill("a")
        for path in (*folder.glob("*.json"), *folder.glob("notes/*.json")):
            assert path.stat().st_size > 0, f"{path} is empty"
        agent = stage.agent("a")
        stage.same(before, 5.0)
        filler.unlink()
        stage.fault()
        if not agent.alive():
            stage.agent("a")
        stage.until(
            "it starts what it could not", lambda sample: any("more" in one.task for one in sample.instances), 120
        )
        stage.settle()
        stage.same(before)
        stage.over()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be opened for writing in ``folder``. What is open stays so, which no file system allows that is made
    read-only itself: a second, read-only way to the same files is laid over the first."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True, timeout=30)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True, timeout=30)
        with contextlib.suppress(OSError):
            (folder / "probe").touch()
            raise AssertionError("it can be written")
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


@row(
    "F40",
    "an agent has no file descriptors left, then a folder that can't be written",
    instead="root has no limit on processes; what is open for writing stays so",
)
def no_descriptors(stage: Stage) -> None:
    folder = stage.folder / "agent-a"
    with small_disk(folder, "8m"):
        agent = stage.agent("a")
        stage.scheduler()
        stage.hosts("a")
        stage.run_service(desired=2)
        stage.settle()
        before = stage.running()
        used = psutil.Process(agent.pid).num_fds()
        usual = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used, usual[1]))
        stage.mortals("more")
        stage.run_service("more", desired=3)
        stage.same(before, 8.0)
        assert agent.alive(), agent.text()[-3000:]
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, usual)
        stage.fault()
        stage.until("it starts what it could not", lambda sample: _count(sample, "more") == 3, 150)
        stage.settle()
        stage.same(before)
        before = stage.running()
        with read_only(folder):
            stage.mortals("later")
            stage.run_service("later", desired=2)
            stage.same(before, 8.0)
            assert agent.alive(), agent.text()[-3000:]
            assert not _count(stage.monitor.look_again(), "later"), "it starts what it can't write down"
        stage.fault()
        stage.until("it starts what it could not write down", lambda sample: _count(sample, "later") == 2, 150)
        stage.settle()
        stage.same(before)
        stage.over()


def _written(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            total += path.lstat().st_size
    return total


def _count(sample, name: str) -> int:
    return sum(f"-{name}-" in one.task for one in sample.instances)


@row(
    "F41",
    "wall clocks go back an hour, forward a year, and to and fro",
    instead="the processes' own clocks are moved",
)
def wall_clock(stage: Stage) -> None:
    skew = stage.folder / "skew"
    skew.write_text("0")
    path = os.pathsep.join([str(HERE / "skewed"), os.environ.get("PYTHONPATH", "")])
    more = {"PYTHONPATH": path, "SKED_SKEW_FILE": str(skew)}
    stage.agent("a", more=more)
    stage.scheduler("scheduler", more=more)
    stage.hosts("a")
    stage.run_service(desired=3)
    stage.settle()
    before = stage.running()
    count = 3
    for seconds in (-3600, 365 * 86400, -5, 5, 0):
        skew.write_text(str(seconds))
        stage.same(before, 2.0)
        count += 1
        stage.fault()
        stage.scale("web", count)
        stage.settle()
    stage.same(before)


@row("F42", "everything sleeps for longer than any lease lasts, and wakes up at once")
def suspended(stage: Stage) -> None:
    for host in "ab":
        stage.agent(host)
    stage.scheduler("scheduler-1")
    stage.scheduler("scheduler-2")
    stage.hosts("a", "b")
    stage.run_service(desired=4)
    stage.settle()
    before = stage.running()
    with stage.outage():
        for name in stage.procs:
            stage.pause(name)
        stage.server.pause()
        stage.same(before, 35.0)
        for name in stage.procs:
            stage.go_on(name)
        stage.server.resume()
    stage.fault()
    stage.hosts("a", "b")
    stage.scale("web", 5)
    stage.settle()
    stage.same(before)


@row("F43", "tasks flood their logs: many lines, one line without an end, NUL bytes", needs=("docker",))
def floods(stage: Stage) -> None:
    agent = stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service("calm", desired=1)
    stage.settle()
    before, memory = stage.running(), psutil.Process(agent.pid).memory_info().rss
    for name, start in {
        "lines": "exec timeout 12 yes a line that is written over and over; sleep 1000",
        "endless": "timeout 12 head -c 1000000000 /dev/zero | tr '\\0' x; exec sleep 1000",
        "nul": "timeout 12 cat /dev/zero; exec sleep 1000",
    }.items():
        stage.mortals(name)
        stage.run_service(name, desired=1, start=start)
    stage.mortals("box")
    stage.run_service("box", **docker_service(1, executor={"cmd": ["timeout", "10", "yes"]}))
    deadline = time.monotonic() + 25
    most = memory
    while time.monotonic() < deadline:
        most = max(most, psutil.Process(agent.pid).memory_info().rss)
        time.sleep(0.5)
    assert most - memory < 60 * 2**20, f"the agent grew by {(most - memory) / 2**20:.0f} MB"
    # While it is written a flood overshoots: then it is cut to three files of 10 MB for each of the three.
    stage.until("the logs are cut", lambda _: _written(stage.folder / "agent-a") < 100 * 2**20)
    stage.same(before)
    stage.fault()
    for name in ("lines", "endless", "nul", "box"):
        stage.scale(name, 0)
    stage.settle(120)


@row(
    "F44",
    "the store comes back, and all agents of many hosts come at once",
    instead="ten agents, of which each is a process",
)
def herd(stage: Stage) -> None:
    names = [f"h{number}" for number in range(10)]
    for name in names:
        stage.agent(name)
    stage.scheduler()
    stage.hosts(*names)
    stage.run_service(desired=10)
    stage.settle()
    before = stage.running()
    with stage.outage():
        stage.server.kill()
        time.sleep(8)
        stage.server.start(60)
    stage.fault()
    most = 0
    until = time.monotonic() + 15
    while time.monotonic() < until:
        most = max(most, sum(stage.monitor.look_again().connections.values()))
    assert 0 < most < 200, f"{most} connections"
    stage.hosts(*names)
    stage.scale("web", 12)
    stage.settle()
    stage.same(before)


class _Target(BaseHTTPRequestHandler):
    """``/hang`` never answers, ``/huge`` sends 10 MB, ``/loop`` leads to itself."""

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            if self.path == "/hang":
                threading.Event().wait(60)
            elif self.path == "/huge":
                self.send_response(200)
                self.end_headers()
                for _ in range(160):
                    self.wfile.write(b"x" * 65536)
            else:
                self.send_response(302)
                self.send_header("Location", "/loop")
                self.end_headers()


@row("F46", "what health checks ask hangs, sends far too much, or leads in circles", store="etcd")
def targets(stage: Stage) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Target)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stage.clean(server.server_close)
    stage.clean(server.shutdown)
    agent = stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    flag = stage.folder / "ill"
    good = {"script": f"test ! -e {flag}", "interval": "1s"}
    stage.run_service("well", desired=1, container={"checks": [good]})
    for name in ("hang", "huge", "loop"):
        check = {"http": f"http://127.0.0.1:{server.server_address[1]}/{name}", "interval": "1s", "timeout": "2s"}
        stage.run_service(name, desired=2, container={"checks": [check]}, grace_period="600s")
    stage.settle()
    before, memory = stage.running(), psutil.Process(agent.pid).memory_info().rss
    stage.until("the good one is healthy", lambda _: _healthy(stage, "well"))
    stage.same(before, 12.0)
    flag.touch()
    stage.fault()
    stage.until("a check that fails is seen all the same", lambda _: not _healthy(stage, "well"), 30)
    flag.unlink()
    stage.until("and one that is well again", lambda _: _healthy(stage, "well"), 30)
    grown = (psutil.Process(agent.pid).memory_info().rss - memory) / 2**20
    assert grown < 60, f"the agent grew by {grown:.0f} MB"
    stage.settle()


def _healthy(stage: Stage, service: str) -> bool:
    found = [task for task in stage.rig.items() if task["service"] == service]
    return bool(found) and all(task["healthy"] for task in found)


@row("F47", "executors of a plugin raise, hang, give nothing, end the process, or are missing")
def wrong_plugins(stage: Stage) -> None:
    path = os.pathsep.join([str(HERE.parent), str(HERE / "installed"), os.environ.get("PYTHONPATH", "")])
    stage.rig.env["PYTHONPATH"] = path
    agent = stage.agent("a", more={"PYTHONPATH": path})
    stage.scheduler()
    stage.hosts("a")
    stage.run_service("well", desired=2)
    stage.settle()
    before = stage.running()
    for kind in WRONG:
        stage.mortals(kind)
    stage.run_services({kind: {"desired": 1, "container": {"type": kind, "executor": {}}} for kind in WRONG})
    seen: set[str] = set()

    def issued_once(sample: Sample) -> bool:
        seen.update(task.service for one in issued(sample.store or {}).values() if (task := task_of(one.value)))
        return seen >= WRONG.keys() - {"blind"}  # its host does not offer what does not answer

    stage.until("they are issued", issued_once)
    stage.same(before, 5.0)
    stage.note("due", "default-late-1-0 45")
    stage.fault()
    stage.run_service("late", desired=1)
    stage.settle()
    assert agent.alive()
    stage.expect_end("a")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0, agent.text()[-3000:]
    stage.agent("a", more={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})  # now they are missing
    stage.hosts("a")
    stage.same(before, 3.0)
    stage.scale("late", 2)
    stage.settle()


@row("F45", "servers of artifacts: slow, endless, broken, with other contents, leading to addresses inside")
def artifact_servers(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service("well", desired=1)
    stage.settle()
    before = stage.running()
    with serving_site(Site()) as site:
        names = ("sends something else", "redirects to metadata", "sends it encoded")
        for number, name in enumerate(names):
            fault = FAULTS[name]
            site.pages[fault_path(name)] = fault.page
            artifact = {"url": site.url + fault_path(name), "checksum": fault.checksum}
            executor = {"start": "sleep 1000", "artifact": artifact}
            stage.mortals(f"bad-{number}")
            stage.run_service(f"bad-{number}", desired=1, container={"executor": executor})
        stage.note("due", "default-late-1-0 60")
        stage.run_service("late", desired=1)
        stage.fault()
        for number, name in enumerate(names):
            stage.until(
                f"one that {name} is refused with its reason",
                lambda sample, number=number, name=name: any(
                    f"bad-{number}" in key and FAULTS[name].says.encode() in one.value
                    for key, one in (sample.store or {}).items()
                ),
            )
        assert not [one for one in stage.running() if "bad" in one], "nothing starts on what was not fetched"
        stage.same(before)
        for number in range(3):
            stage.scale(f"bad-{number}", 0)
        stage.settle()
    took = check_faults(stage.folder / "fetched")
    assert max(took.values()) < 60, took
