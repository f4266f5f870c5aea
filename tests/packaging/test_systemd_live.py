"""The units under a real systemd, with the single file as their program: what Type=notify, the watchdog, KillMode and
the hardening come to is found out rather than read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.sked import service
from rigs.systemd import STORE, Machine

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging" / "systemd"


@pytest.fixture(scope="module")
def machine(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine()
    try:
        pyz = tmp_path_factory.mktemp("pyz") / "sked.pyz"
        command = [
            sys.executable,
            ROOT / "scripts/build-pyz",
            "--output",
            pyz,
            "--wheels",
            wheels[0].parent,
            "bash",
            "web",
        ]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        built = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=240)
        assert built.returncode == 0, built.stderr
        machine.done(
            "mkdir -p /opt/sked/bin /etc/sked /usr/lib/sysusers.d /var/lib/shared && chmod 777 /var/lib/shared"
        )
        for source, target in (
            (pyz, "/opt/sked/bin/sked"),
            (UNITS / "sked.sysusers.conf", "/usr/lib/sysusers.d/sked.conf"),
            *((path, "/etc/systemd/system/") for path in UNITS.glob("*.service")),
        ):
            assert machine.docker("cp", source, f"{machine.name}:{target}").returncode == 0
        machine.done(f"systemd-sysusers && echo SKED_BACKEND={STORE} > /etc/sked/environment")
        machine.done("printf 'executors: [bash]\\nbash: {run_as: sked-tasks}\\n' > /etc/sked/policy.yml")
        # The embedded store, which all of them write, is in no place that the hardened units may write to.
        for name in ("sked-scheduler", "sked-web"):
            folder = f"/etc/systemd/system/{name}.service.d"
            machine.done(
                f"mkdir {folder} && printf '[Service]\\nReadWritePaths=/var/lib/shared\\n' > {folder}/store.conf"
            )
        machine.done("systemctl daemon-reload")
        yield machine
    finally:
        machine.close()


def test_tasks_outlive_restarts_a_watchdog_that_bites_and_the_end_of_the_agent(machine: Machine) -> None:
    machine.done("systemctl start sked-agent")
    machine.done("chmod 666 /var/lib/shared/*")  # it runs as root, the others do not
    machine.done("systemctl start sked-scheduler sked-web")
    for name in ("sked-agent", "sked-scheduler", "sked-web"):
        assert machine.shown(f"{name}.service", "ActiveState") == "active"
    assert machine.shown("sked-scheduler.service", "User") == "sked"
    manifest = json.dumps(service(desired=2, start="exec sleep 100000"))
    machine.done(f"echo '{manifest}' | /opt/sked/bin/sked apply -f - --wait --timeout 60s")
    pids = machine.done("pgrep -x sleep").split()
    assert len(pids) == 2
    for pid in pids:
        status = machine.done(f"cat /proc/{pid}/status")
        user = machine.done("id -u sked-tasks").strip()
        assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE), status
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE) and re.search(
            r"^NoNewPrivs:\t1$", status, re.MULTILINE
        )
        machine.done(f"grep -q sked/ /proc/{pid}/cgroup || journalctl --no-pager | grep -q 'not limited'")
    assert machine.done(f"/opt/sked/bin/sked exec {machine.tasks()[0]['id']} -- id -un").strip() == "sked-tasks"
    assert machine.run("runuser -u sked-tasks -- ls /var/lib/sked").returncode != 0
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8642/metrics').read().decode())"
    assert "sked_build_info" in machine.done(f'python3 -c "{asked}"')

    before = machine.shown("sked-agent.service", "MainPID")
    machine.done("systemctl restart sked-agent")
    assert machine.shown("sked-agent.service", "MainPID") not in (before, "0")
    assert machine.done("pgrep -x sleep").split() == pids

    folder = "/etc/systemd/system/sked-agent.service.d"
    machine.done(f"mkdir {folder} && printf '[Service]\\nWatchdogSec=6\\n' > {folder}/watchdog.conf")
    machine.done("systemctl daemon-reload && systemctl restart sked-agent")
    main = machine.shown("sked-agent.service", "MainPID")
    time.sleep(8)
    assert machine.shown("sked-agent.service", "MainPID") == main, "as long as it goes on it is left alone"
    machine.done(f"kill -STOP {main}")
    machine.until("a new agent", lambda: machine.shown("sked-agent.service", "MainPID") not in (main, "0"))
    machine.until("it is ready", lambda: machine.shown("sked-agent.service", "ActiveState") == "active")
    assert machine.shown("sked-agent.service", "NRestarts") == "1"
    assert machine.done("pgrep -x sleep").split() == pids
    machine.until("adopted", lambda: [task["healthy"] for task in machine.tasks()] == [True, True])

    for name in ("sked-web", "sked-scheduler", "sked-agent"):
        machine.done(f"systemctl stop {name}")
        assert machine.shown(f"{name}.service", "Result") == "success"
    assert machine.done("pgrep -x sleep").split() == pids, "nobody has ended them"


def test_both_in_one_take_the_place_of_the_agent(machine: Machine) -> None:
    machine.done("systemctl start sked-agent && systemctl start sked-combined")
    machine.until("the agent is gone", lambda: machine.shown("sked-agent.service", "ActiveState") == "inactive")
    assert machine.shown("sked-combined.service", "ActiveState") == "active"
    machine.done("systemctl stop sked-combined")
