"""The kit of executors on a machine that systemd runs, with this repository and its Python to be read there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.sked import service
from rigs.systemd import Machine

ROOT = Path(__file__).resolve().parents[3]
PYTHON = Path(sys.executable).parent.resolve() / Path(sys.executable).name
KIT = """
from sked_core.testing.executors import ExecutorContract
from sked_systemd.samples import SYSTEMD


class TestSystemd(ExecutorContract):
    sample = SYSTEMD
    kills = 3
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    places = {ROOT, PYTHON.parents[1], Path(sys.base_prefix).resolve()}
    machine = Machine(*(place for place in places if place != Path("/usr")))  # which it has itself
    yield machine
    machine.close()


def within(command: str) -> str:
    path = ":".join(map(str, (ROOT, *(ROOT / "plugins").glob("sked_*"))))
    return f"cd /root && PYTHONPATH={path} SKED_POLICY=development {PYTHON} {command}"


def test_it_passes_the_kit(machine: Machine) -> None:
    machine.done(f"cat >/root/test_kit.py <<'END'\n{KIT}\nEND")
    ran = machine.run(within("-m pytest -q -p no:cacheprovider --timeout 0 test_kit.py"), patience=280)
    found = re.search(r"(\d+) passed", ran.stdout)
    assert ran.returncode == 0 and found is not None, ran.stdout[-6000:] + ran.stderr[-1000:]
    assert int(found[1]) > 50


def test_tasks_outlive_the_agent_and_are_taken_over(machine: Machine) -> None:
    manifest = service("web", desired=2, container={"type": "systemd", "executor": {"start": "exec sleep 100000"}})
    machine.done(f"cat >/root/web.json <<'END'\n{json.dumps(manifest)}\nEND")
    sked = within("-m sked_core.surface.cli")
    unit = "systemd-run --quiet --collect --unit=agent --setenv=SKED_BACKEND=$SKED_BACKEND"
    agent = f"{unit} /bin/sh -c '{sked} run combined'"
    machine.done(agent)
    machine.done(f"{sked} apply -f web.json")
    units = "systemctl list-units --no-legend --plain --state=running 'sked-*' | sort"
    running = machine.until("two units run", lambda: (lines := machine.done(units).splitlines())[1:] and lines)
    machine.done("systemctl kill --signal=KILL agent")
    assert machine.done(units).splitlines() == running
    machine.until("the agent is gone", lambda: machine.run("systemctl is-active agent").returncode != 0)
    machine.done(agent)
    machine.done(f"{sked} scale web 1")
    left = machine.until("one is left", lambda: (lines := machine.done(units).splitlines())[:-1] == [] and lines)
    assert left[0] in running, "the one that is left is one that ran before"
    machine.done(f"{sked} delete service/web --cascade -y")
    machine.until("none is left", lambda: machine.done(units) == "")
