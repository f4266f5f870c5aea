"""What is left of tasks that are gone: `sked why` tells it on real stores, of real processes and containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

from rigs.sked import Rig

TASK = "default-web-1-0"


def told(rig: Rig, task: str = TASK) -> dict[str, Any]:
    """Its story."""
    return json.loads(rig.sked("why", task, "-o", "json"))["items"][0]


def endings(rig: Rig, cause: str) -> list[dict[str, Any]]:
    return [one for one in told(rig)["endings"] if one["cause"] == cause]


def test_a_crash_is_told_when_the_task_its_service_and_its_agent_are_gone(consul_rig, manifest):
    rig, _consul = consul_rig
    both = rig.run("combined", host="a")
    start = 'echo "cannot map the index" >&2; kill -9 $$'
    rig.apply(manifest(desired=1, start=start, max_attempts=3))
    rig.until("it is issued", rig.items)
    (crashed,) = rig.until("three crashes", lambda: [one for one in endings(rig, "crashed") if one["times"] >= 3])
    assert (crashed["host"], crashed["exits"]) == (rig.host("a"), {"web": 137})
    assert crashed["log"] == ["cannot map the index"]
    rig.until("rejected", lambda: endings(rig, "rejected"))
    rig.sked("delete", "service/web", "--cascade", "-y")
    rig.until("no task is left", lambda: not rig.items("tasks"))
    both.kill()
    # Between its rejection and its deletion it may have been issued once more, and withdrawn while it waited.
    text = rig.sked("why", TASK)
    assert text.startswith(f"{TASK} is gone: ")
    assert "killed by signal 9 (SIGKILL)" in text
    assert "    | cannot map the index\n" in text
    assert f"sked why {TASK}" in rig.sked("explain", TASK, code=4, errors=True)
    assert "Traceback" not in both.text()


def test_one_that_died_while_its_agent_was_dead_and_one_that_was_stopped_are_told_as_such(rig, manifest):
    first = rig.run("combined", host="a")
    rig.apply(manifest(desired=1, start="echo up; exec sleep 1000"))
    rig.until("it is healthy", rig.healthy(1))
    ((pid,),) = rig.processes().values()
    first.kill()
    os.kill(pid, signal.SIGKILL)
    rig.run("combined", host="a")
    (crashed,) = rig.until("its end is kept", lambda: endings(rig, "crashed"))
    assert crashed["log"] == ["up"]
    assert crashed["started"]
    rig.until("it is healthy again", rig.healthy(1))
    rig.sked("scale", "web", "0")
    (stopped,) = rig.until("its stop is kept", lambda: endings(rig, "stopped"))
    assert (stopped["reason"], stopped["log"]) == ("withdrawn", ["up"])
    assert rig.sked("why", TASK).startswith(f"{TASK} is gone: stopped on {rig.host('a')}, ")


def test_a_container_that_is_killed_is_told_with_its_code_and_its_words(rig, busybox_image, manifest):
    rig.run("combined", host="a")
    executor = {"image": busybox_image, "cmd": ["sh", "-c", "echo up; echo trouble >&2; exec sleep 1000"]}
    rig.apply(manifest(desired=1, container={"type": "docker", "executor": executor}))
    ((container,),) = rig.until("it runs", rig.containers).values()
    rig.until("it is healthy", rig.healthy(1))
    subprocess.run(["docker", "kill", container], capture_output=True, check=True, timeout=60)
    (crashed,) = rig.until("its end is kept", lambda: endings(rig, "crashed"))
    assert (crashed["exits"], sorted(crashed["log"])) == ({"web": 137}, ["trouble", "up"])
