"""Real processes tell what they did: a command before it ends, a scheduler and an agent while they run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from rigs.sked import Rig, service

FILE = '[[hook]]\nname = "ops"\nurl = "{url}"\nevents = ["*"]\ngroup = "1s"\n'


@pytest.fixture
def rig(tmp_path: Path, file: Path, taker):
    """With the package installed for its processes, whether or not it is in this environment."""
    file.write_text(FILE.format(url=taker.url))
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    info = tmp_path / "path" / "sked_notify-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sked-notify\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[sked]\nnotify = sked_notify.plugin\n")
    paths = (str(info.parent), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", ""))
    rig.env |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "SKED_NOTIFY": str(file)}
    yield rig
    rig.clean_up()


def _told(taker) -> dict[tuple[str, str], int]:
    """How often each event was told, by what it is and of what."""
    found: dict[tuple[str, str], int] = {}
    for body in list(taker.bodies):
        for one in json.loads(body)["events"]:
            key = (one["what"], one["subject"])
            found[key] = found.get(key, 0) + one["count"]
    return found


def test_a_command_has_told_what_it_did_when_it_ends(rig, taker):
    rig.apply(service("web", desired=1))
    assert _told(taker) == {
        ("cluster.applied", "cluster/default"): 1,
        ("service.applied", "service/web"): 1,
        ("task_definition.applied", "task_definition/web/1"): 1,
    }
    assert len(taker.bodies) == 1, "what one command does is one message"


def test_a_command_waits_within_a_bound_for_a_hook_that_hangs(rig, taker):
    taker.answers = [lambda request: time.sleep(600)] * 5
    began = time.monotonic()
    rig.sked("apply", "-f", "-", stdin=json.dumps(service("web", desired=1)))
    assert time.monotonic() - began < 60, "a tenth of what it would take to wait for the hook"


def test_a_crash_loop_is_told_by_the_process_that_sees_it_and_nothing_twice(rig, taker):
    running = rig.run("combined", host="a")
    rig.apply(service("web", desired=1, start="echo no such table; exit 7", max_attempts=3))
    failed, rejected = ("task.failed", "task/default-web-1-0"), ("task.rejected", "task/default-web-1-0")
    rig.until("it is given up", lambda: rejected in _told(taker))
    assert running.terminate() == 0
    told = _told(taker)
    assert told[failed] >= 2
    for once in (("service.applied", "service/web"), ("task.issued", "task/default-web-1-0"), rejected):
        assert told[once] == 1, once
    why = [one["why"] for body in taker.bodies for one in json.loads(body)["events"] if one["what"] == "task.failed"]
    assert "exit 7" in why[0]
