"""What systemd is told, by real processes over a real socket, and the units that ask for it."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.needs import program
from rigs.sked import PATIENCE, Rig, service
from sked_bash.rights import BashPolicy
from sked_core.clock import SystemClock
from sked_core.runtime.agent import policy_file
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.pulse import HUNG_SECONDS, Pulse
from sked_core.serving.systemd import LONGEST_PAUSE, Systemd

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))


class Listener:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(PATIENCE)

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def until(self, what: str) -> list[str]:
        """All that comes up to the first datagram that has this line, which is the last one."""
        heard = []
        deadline = time.monotonic() + PATIENCE
        while what not in (heard or [""])[-1].splitlines():
            assert time.monotonic() < deadline, heard
            heard.append(self.next())
        return heard

    def drain(self) -> list[str]:
        heard = []
        self._socket.setblocking(False)
        try:
            while True:
                heard.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return heard
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[str], Listener]]:
    made: list[Listener] = []

    def at(address: str) -> Listener:
        made.append(Listener(address))
        return made[-1]

    yield at
    for one in made:
        one.close()


@pytest.fixture
def rig(tmp_path: Path):
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


@pytest.mark.parametrize("kind", ["agent", "scheduler", "combined"])
def test_a_process_says_that_it_is_ready_that_it_lives_and_that_it_ends(kind, rig, listen, tmp_path) -> None:
    systemd = listen(str(tmp_path / "notify"))
    rig.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "800000"}
    proc = rig.run(kind, host="h" if kind != "scheduler" else "")
    systemd.until("READY=1")
    assert "started" in proc.text()
    for _ in range(5):
        assert systemd.until("WATCHDOG=1")[-1] == "WATCHDOG=1"
    proc.signal(signal.SIGTERM)
    systemd.until("STOPPING=1")
    assert proc.wait() == 0


def test_an_agent_is_ready_without_the_store_once_it_was_here_before(rig, listen, tmp_path) -> None:
    assert_started = rig.run("agent", host="h")
    rig.until("its first life", lambda: "belongs to store" in assert_started.text())
    assert_started.terminate()
    (tmp_path / "folder.db").mkdir()
    systemd = listen(str(tmp_path / "notify"))
    rig.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    rig.run("agent", host="h", backend=f"sqlite://{tmp_path}/folder.db")
    assert "WATCHDOG=1" not in "".join(systemd.until("READY=1")), "nobody asked for it"


def test_tasks_are_not_told_of_systemd(rig, listen, tmp_path) -> None:
    systemd = listen(str(tmp_path / "notify"))
    rig.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "9000000"}
    rig.run("combined", host="h")
    systemd.until("READY=1")
    rig.apply(service(start=f"env > {tmp_path}/env; exec sleep 1000", desired=1))
    rig.until("a task", rig.healthy(1))
    assert "SKED_TASK_ID=" in (tmp_path / "env").read_text()
    assert not re.search("NOTIFY_SOCKET|WATCHDOG", (tmp_path / "env").read_text())


def test_a_loop_that_hangs_ends_the_signs_of_life_and_they_come_back_with_it(listen, tmp_path) -> None:
    systemd, clock, stop, hang = (
        listen("@sked-test-" + tmp_path.name),
        SystemClock(),
        threading.Event(),
        threading.Event(),
    )
    pulse, other, hung = Pulse(clock), Pulse(clock), threading.Event()

    def loop() -> None:
        while not stop.is_set():
            pulse.begin()
            other.begin()
            other.rest(60.0)
            if hang.is_set():
                hung.set()
                while hang.is_set() and not stop.is_set():
                    stop.wait(0.01)
            pulse.rest(0.05)
            stop.wait(0.05)

    told = Systemd("@sked-test-" + tmp_path.name, watchdog=1.0)
    threads = [
        threading.Thread(target=loop),
        threading.Thread(
            target=told.run,
            args=(stop,),
            kwargs={"ready": lambda: pulse.rounds > 0, "pulses": lambda: {"agent": pulse, "other": other}},
        ),
    ]
    for thread in threads:
        thread.start()
    try:
        systemd.until("READY=1")
        systemd.until("WATCHDOG=1")
        hang.set()
        assert hung.wait(PATIENCE)
        systemd.until("STATUS=agent does not go on")
        systemd.drain()
        assert not stop.wait(1.5), "longer than systemd would wait"
        assert systemd.drain() == []
        hang.clear()
        systemd.until("STATUS=all goes on again")
        systemd.until("WATCHDOG=1")
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    systemd.until("STOPPING=1")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "elsewhere"}, None),
        ({"NOTIFY_SOCKET": "/run/x"}, 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "PID"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_what_the_environment_asks_for_is_taken_out_of_it(monkeypatch, environment, told) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("PID", str(os.getpid())))
    found = Systemd.from_environment()
    assert (found._watchdog if found else None) == told
    assert not [name for name in os.environ if name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")]


def test_a_socket_that_nobody_reads_any_more_stops_nothing(tmp_path) -> None:
    Systemd(str(tmp_path / "nobody")).tell("READY=1")


# --- the units ---------------------------------------------------------------------------------------------------


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def test_there_is_a_unit_for_each_process() -> None:
    assert [path.stem for path in UNITS] == ["sked-agent", "sked-combined", "sked-scheduler", "sked-web"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_each_unit_is_told_of_life_and_ends_and_restarts_by_it(path: Path) -> None:
    what = unit(path)["Service"]
    assert (what["Type"], what["NotifyAccess"], what["Restart"]) == ("notify", "main", "always")
    watchdog = int(what["WatchdogSec"])
    assert watchdog >= 2 * HUNG_SECONDS > 4 * LONGEST_PAUSE
    runs_tasks = path.stem in ("sked-agent", "sked-combined")
    assert (what.get("KillMode") == "process") == runs_tasks, "tasks outlive the agent's restart"
    assert (what.get("OOMPolicy") == "continue") == runs_tasks
    assert ("User" in what) != runs_tasks


DENIED_TO_TASKS = [
    "User",
    "PrivateUsers",
    "PrivateTmp",
    "ProtectHome",
    "ProtectControlGroups",
    "Delegate",
    "ProtectClock",
    "PrivateDevices",
    "DevicePolicy",
    "ProtectProc",
    "RestrictNamespaces",
    "MemoryDenyWriteExecute",
    "IPAddressDeny",
    "PrivateNetwork",
]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_what_tasks_would_inherit_and_could_not_do_with_is_not_denied_to_agents_and_the_page_says_why(
    path: Path,
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text().partition("### What the units forbid")[2]
    assert [name for name in DENIED_TO_TASKS if f"`{name}=" not in page] == []
    if path.stem in ("sked-agent", "sked-combined"):
        assert not set(DENIED_TO_TASKS) & set(unit(path)["Service"])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_figure_of_systemd_analyze_security_is_the_one_on_the_page(path: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    text = path.read_text().replace("/opt/sked/bin/sked", shutil.which("true") or "/bin/true")
    (tmp_path / path.name).write_text(text.replace("=sked\n", "=daemon\n"))
    command = [analyze, "security", "--offline=true", "--no-pager", tmp_path / path.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert found, ran.stdout + ran.stderr
    told = 5.8 if path.stem in ("sked-agent", "sked-combined") else 1.5
    assert f"{told} of 10" in (page := (ROOT / "docs" / "operations.md").read_text()) or f"at {told}, from" in page
    assert float(found[1]) <= told + 0.4, "versions of systemd weigh a little differently"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    text = path.read_text().replace("/opt/sked/bin/sked", shutil.which("true") or "/bin/true")
    (tmp_path / path.name).write_text(text.replace("User=sked", "User=root").replace("Group=sked", "Group=root"))
    command = [analyze, "verify", "--man=no", "--recursive-errors=no", tmp_path / path.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if path.name in line]
    assert ran.returncode == 0 and not said, ran.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_command_of_each_unit_exists(path: Path) -> None:
    command = unit(path)["Service"]["ExecStart"].split()[1:]
    ran = subprocess.run(
        [sys.executable, "-m", "sked_core.surface.cli", *command, "--help"], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("commented", "executors"), [(True, ["docker"]), (False, ["docker", "bash"])])
def test_the_policy_that_is_installed_is_one_as_it_comes_and_with_what_it_shows(commented, executors) -> None:
    text = (ROOT / "packaging" / "policy.yml").read_text()
    if not commented:
        text = re.sub(r"^#(executors|bash):", r"\1:", text.replace("\nexecutors: [docker]\n", "\n"), flags=re.MULTILINE)
    policy, problems = policy_file.parse(text.encode(), "policy.yml", Plugins.load())
    assert not problems
    assert policy.executors == executors
    assert policy.section("bash", BashPolicy) == BashPolicy(run_as="" if commented else "sked-tasks")
    assert "\nu sked-tasks " in (ROOT / "packaging/systemd/sked.sysusers.conf").read_text()


def test_the_page_on_operations_shows_the_unit_of_the_agent_as_it_is() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert (ROOT / "packaging/systemd/sked-agent.service").read_text() in page
