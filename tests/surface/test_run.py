"""The long-running processes: as real processes with real signals, and failures in their threads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sked_core.errors import PluginError
from sked_core.model import keys
from sked_core.surface.processes import run_until_signal

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``sked …`` in the background, its output in a file; what still runs at the end is killed."""
    started = []

    def popen(*args: str) -> subprocess.Popen[str]:
        with (tmp_path / f"log-{len(started)}").open("w") as log:
            command = [sys.executable, "-m", "sked_core.surface.cli", *args]
            env = os.environ | {"SKED_POLICY": os.environ.get("SKED_POLICY", "development")}
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, text=True, env=env))
        return started[-1]

    yield popen
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(60)


def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def log(tmp_path: Path, number: int = 0) -> str:
    return (tmp_path / f"log-{number}").read_text()


def test_combined_runs_what_is_applied_and_ends_on_sigterm(sked, store, start, tmp_path, manifest) -> None:
    process = start("combined", "--host", "h-1", "--tag", "rack=r1", "--address", "10.1.2.3")
    until(lambda: keys.host("h-1") in store.read(keys.HOSTS).entries)
    assert log(tmp_path).splitlines()[0].startswith("sked: store sqlite://")
    try:
        assert sked("apply", "-f", str(manifest), "--wait", "--timeout", "60s").code == 0
        items = json.loads(sked("tasks", "-o", "json").out)["items"]
        assert [(item["id"], item["healthy"]) for item in items] == [
            ("default-web-1-0", True),
            ("default-web-1-1", True),
        ]
        host = json.loads(sked("hosts", "-o", "json").out)["items"][0]
        assert (host["state"], host["tags"], host["address"]) == ("ready", {"rack": "r1"}, "10.1.2.3")
    finally:
        sked("scale", "web", "0")
        until(lambda: not store.read(keys.HOST_TASKS + "h-1/default").entries)
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert process.wait(60) == 0


def test_a_scheduler_needs_no_home(start, store, monkeypatch, tmp_path) -> None:
    """As in a container whose user no file knows."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    (nobody / "sitecustomize.py").write_text("import pwd\npwd.getpwuid = {}.__getitem__\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(nobody), *filter(None, [os.environ.get("PYTHONPATH")])]))
    process = start("run", "scheduler")
    until(lambda: bool(store.read(keys.SCHEDULERS).entries) or process.poll() is not None)
    process.terminate()
    assert process.wait(60) == 0, log(tmp_path)


def test_a_task_with_a_ttl_check_reports_itself(sked, store, start, url, tmp_path) -> None:
    start("combined", "--host", "h-1")
    until(lambda: keys.host("h-1") in store.read(keys.HOSTS).entries)
    command = f"while sleep 0.5; do {sys.executable} -m sked_core.surface.cli report --backend {url}; done"
    container = {"name": "w", "type": "bash", "executor": {"start": command}, "checks": [{"ttl": "20s"}]}
    manifest = {
        "clusters": [{"name": "c", "services": ["w"]}],
        "services": [{"name": "w", "task_name": "w", "task_version": 1}],
        "task_definitions": [{"name": "w", "version": 1, "containers": [container]}],
    }
    (tmp_path / "ttl.json").write_text(json.dumps(manifest))
    try:
        assert sked("apply", "-f", str(tmp_path / "ttl.json"), "--wait", "--timeout", "60s").code == 0
        assert keys.report("h-1", "c-w-1-0") in store.read(keys.REPORTS).entries
    finally:
        sked("scale", "w", "0")
        until(lambda: not store.read(keys.HOST_TASKS + "h-1/c-w").entries)
    until(lambda: not store.read(keys.HEALTH + "h-1/").entries)


def test_agent_alone_says_which_store_is_the_default_and_ctrl_c_is_130(start, tmp_path, monkeypatch) -> None:
    process = start("run", "agent", "--host", "h-1")
    until(lambda: "started" in log(tmp_path))
    first = log(tmp_path).splitlines()[0]
    assert first.startswith(
        f"sked: store sqlite://{tmp_path}/state/sked/sked.db: an embedded file, for this host alone"
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_where_the_store_was_chosen_is_not_told_of_another_plugin_that_lacks(sked, store) -> None:
    ran = sked("run", "scheduler", "--shadow", "nosuch")
    assert ran.code == 1 and 'no scheduler "nosuch" is installed' in ran.err
    assert "from:" not in ran.err


def test_an_agents_first_start_needs_the_store_and_says_so(sked, tmp_path) -> None:
    ran = sked("agent", "--host", "h-1", "--backend", "consul://127.0.0.1:1")
    assert ran.code == 6
    assert "from: --backend consul://127.0.0.1:1" in ran.err
    assert "start one:" in ran.err


def test_an_agent_that_was_here_before_starts_without_the_store(start, store, url, tmp_path) -> None:
    """What it runs has to be looked after; here the store is a folder where its file should be."""
    state = tmp_path / "agent"
    first = start("agent", "--host", "h-1", "--state-dir", str(state))
    until(lambda: "belongs to store" in log(tmp_path))
    first.terminate()
    assert first.wait(60) == 0
    (tmp_path / "folder.db").mkdir()
    second = start("agent", "--host", "h-1", "--state-dir", str(state), "--backend", f"sqlite://{tmp_path}/folder.db")
    until(lambda: "started, state in" in log(tmp_path, 1))
    time.sleep(0.5)
    assert second.poll() is None
    second.terminate()
    assert second.wait(60) == 0


def test_an_agent_says_what_its_operator_grants_of_the_machine(start, store, tmp_path) -> None:
    (tmp_path / "sked.toml").write_text('memory = "1g"\ncpu = 1.5\nport_range = "21000-21999"\n')
    granted = ("--memory", "9999t", "--disk", "20m", "--config", str(tmp_path / "sked.toml"))
    process = start("agent", "--host", "h-1", *granted)
    until(lambda: keys.host("h-1") in store.read(keys.HOSTS).entries)
    host = json.loads(store.read(keys.HOSTS).entries[keys.host("h-1")].value)
    assert (host["memory"], host["cpu_units"], host["disk"]) == (9999 * 1024 * 1024, 1536, 20)
    assert host["port_range"] == [21000, 21999]
    assert f"--memory: tasks are granted {host['memory']} MB, this machine has" in log(tmp_path)
    assert "--disk" not in log(tmp_path)
    process.terminate()
    assert process.wait(60) == 0


def test_an_agent_says_where_its_secrets_are_read(start, store, tmp_path, monkeypatch) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text(f"secrets: {{allow: {{'*': [a]}}, providers: {{file: {{folder: {tmp_path}/s}}}}}}\n")
    monkeypatch.setenv("SKED_POLICY", str(policy))
    start("agent", "--host", "h-1")
    until(lambda: "INFO sked: secrets are read by file of sked-core " in log(tmp_path))


def test_scheduler_alone_needs_no_host(start, store, tmp_path) -> None:
    process = start("scheduler", "--lost-after", "30s", "--verbose")
    until(lambda: "started" in log(tmp_path))
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["run", "agent", "--host", "../x"], 2),
        (["agent", "--host", "a/b"], 2),
        (["agent", "--tag", "novalue"], 2),
        (["scheduler", "--lost-after", "soon"], 2),
        (["agent", "--max-tasks", "0"], 2),
        (["agent", "--memory", "4 bananas"], 2),
        (["agent", "--memory", "0g"], 2),
        (["combined", "--cpu", "0"], 2),
        (["agent", "--cpu", "-1"], 2),
        (["agent", "--disk", ""], 2),
        (["agent", "--port-range", "29999-20000"], 2),
        (["agent", "--port-range", "80-20000"], 2),
        (["agent", "--port-range", "20000-20005"], 2),
        (["agent", "--port-range", "20000"], 2),
        (["agent", "--port-range", "20000-70000"], 2),
        (["scheduler", "--host", "h-1"], 2),
    ],
)
def test_wrong_options_end_at_once(sked, store, args, code) -> None:
    assert sked(*args).code == code


def wait_for(stop: threading.Event) -> None:
    stop.wait(60)


def test_a_role_that_fails_ends_the_other_one_too(capsys) -> None:
    ended = []

    def fails(stop: threading.Event) -> None:
        raise PluginError("no executor", hint="pip install one")

    def other(stop: threading.Event) -> None:
        ended.append(stop.wait(60))

    assert run_until_signal({"agent": fails, "scheduler": other}) == 1
    assert ended == [True]
    assert capsys.readouterr().err == "sked: no executor\n  pip install one\n"


def test_an_unexpected_failure_is_a_failure_of_the_process(capsys) -> None:
    def fails(stop: threading.Event) -> None:
        raise KeyError("bug")

    assert run_until_signal({"agent": fails, "scheduler": wait_for}) == 1
    assert "internal error: KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_first_signal_asks_the_roles_to_end(number, code) -> None:
    before = signal.getsignal(number)

    def signalled(stop: threading.Event) -> None:
        os.kill(os.getpid(), number)  # now, when signals are heeded
        stop.wait(60)

    assert run_until_signal({"agent": signalled}) == code
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process_at_once(tmp_path) -> None:
    program = (
        "import threading, time\n"
        "from sked_core.surface.processes import run_until_signal\n"
        "def deaf(stop):\n"
        "    print('up', flush=True)\n"
        "    stop.wait()\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(300)\n"
        "run_until_signal({'agent': deaf})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.readline() == "asked\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_a_thread_of_a_pool_that_waits_for_ever_does_not_keep_the_process_from_its_end(tmp_path) -> None:
    program = (
        "import atexit, threading\n"
        "from sked_core.runtime.workers import ThreadPools\n"
        "from sked_core.surface.processes import run_until_signal\n"
        "from sked_core.surface.stragglers import leave_stragglers\n"
        "def waits(stop):\n"
        "    pools, begun = ThreadPools(), threading.Event()\n"
        "    pools.submit('start', lambda: (begun.set(), threading.Event().wait()))\n"
        "    begun.wait()\n"
        "    print('up', flush=True)\n"
        "    stop.wait()\n"
        "    pools.close()\n"
        "atexit.register(print, 'what a plugin has to say at the end', flush=True)\n"
        "leave_stragglers(run_until_signal({'agent': waits}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "up\n"
            process.terminate()
            assert process.stdout.readline() == "what a plugin has to say at the end\n"
            assert process.wait(60) == 0
        finally:
            process.kill()
