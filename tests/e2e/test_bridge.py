"""Programs as plugins on a live host: tasks of an executor in shell, placed by schedulers in Node and Perl."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest

from rigs.needs import program as needed
from rigs.sked import Rig, service

EXAMPLES = Path(__file__).resolve().parents[2] / "plugins" / "sked_bridge" / "examples"
SCRIPT = "echo here is $SKED_TASK_ID; exec sleep 1000"
CHECKS = [{"script": "true", "interval": "1s"}]


@pytest.fixture
def bridged(rig: Rig) -> Rig:
    for name, package in (("jq", ""), ("setsid", "util-linux"), ("node", "nodejs"), ("perl", "")):
        needed(name, package)
    rig.env["SKED_BRIDGE_PROGRAMS"] = str(EXAMPLES)
    return rig


def declare(rig: Rig, desired: int = 2) -> None:
    container = {"type": "process", "executor": {"script": SCRIPT}, "checks": CHECKS}
    shop = service("shop", desired=desired, container=container, bounds={"scheduler": "emptiest"})
    desk = service("desk", desired=desired, container=container, bounds={"scheduler": "quietest"})
    shop["clusters"][0]["services"] = ["shop", "desk"]
    rig.apply({kind: shop[kind] if kind == "clusters" else shop[kind] + desk[kind] for kind in shop})


def programs(rig: Rig) -> list[psutil.Process]:
    """The processes of the programs that Sked asks."""
    asking, found = {proc.pid for proc in rig.procs}, []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.ppid() in asking and str(EXAMPLES) in " ".join(one.cmdline()):
                found.append(one)
    return found


def leaders(rig: Rig) -> dict[str, list[int]]:
    return {task: pids for task, pids in rig.processes().items() if pids}


def test_what_programs_run_and_place_lives_on_while_they_and_sked_come_and_go(bridged: Rig) -> None:
    rig = bridged
    first = rig.run("combined", host="one")
    rig.hosts_ready(1)
    declare(rig)
    tasks = rig.until("four healthy tasks", rig.healthy(4))
    before = leaders(rig)
    assert set(before) == {task["id"] for task in tasks}
    shop = next(task["id"] for task in tasks if task["id"].startswith("default-shop-"))
    assert f"here is {shop}" in rig.sked("logs", shop)
    assert rig.sked("exec", shop, "--", "printenv", "SKED_TASK_ID").strip() == shop

    ended = rig.until("programs are asked", lambda: programs(rig))
    for one in ended:
        one.kill()
    psutil.wait_procs(ended, 30)
    declare(rig, desired=3)
    rig.until("two more, of programs that were started again", rig.healthy(6))
    assert {task: pids for task, pids in leaders(rig).items() if task in before} == before

    orphans = rig.until("programs are asked", lambda: programs(rig))
    first.kill()
    _, alive = psutil.wait_procs(orphans, 60)
    assert not alive, "they read the end of their input once Sked has died"
    six = leaders(rig)
    second = rig.run("combined", host="one")
    rig.until("all six are known again", lambda: rig.healthy(6)() and programs(rig))
    assert leaders(rig) == six

    declare(rig, desired=0)
    rig.until("nothing is left", lambda: not rig.items() and not leaders(rig))
    left = programs(rig)
    assert second.terminate() == 0
    assert not psutil.wait_procs(left, 30)[1]


def test_a_program_that_hangs_holds_up_its_own_services_only(bridged: Rig, tmp_path: Path) -> None:
    rig = bridged
    folder = tmp_path / "programs"
    folder.mkdir()
    hello = '{"id":1,"result":{"protocol":1,"methods":["place"],"deadlines":{"place":2}}}'
    stuck = folder / "scheduler-stuck"
    stuck.write_text(f"#!/bin/sh\nread line; echo '{hello}'; read line; echo no licence left >&2; sleep 1000\n")
    stuck.chmod(0o755)
    for name in ("executor-process", "scheduler-quietest"):
        (folder / name).write_bytes((EXAMPLES / name).read_bytes())
        (folder / name).chmod(0o755)
    rig.env["SKED_BRIDGE_PROGRAMS"] = str(folder)
    proc = rig.run("combined", host="one")
    rig.hosts_ready(1)
    container = {"type": "process", "executor": {"script": SCRIPT}}
    held = service("held", desired=1, container=container, bounds={"scheduler": "stuck"})
    free = service("free", desired=2, container=container, bounds={"scheduler": "quietest"})
    held["clusters"][0]["services"] = ["held", "free"]
    rig.apply({kind: held[kind] if kind == "clusters" else held[kind] + free[kind] for kind in held})
    rig.until("the others run", rig.healthy(2))
    rig.until("it is named with what it said", lambda: "no licence left" in proc.text() and str(stuck) in proc.text())
    assert not [task for task in rig.items() if task["id"].startswith("default-held-")]
