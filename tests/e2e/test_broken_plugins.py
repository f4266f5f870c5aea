"""docs/broken-plugins.md: what is said of each plugin that does wrong, and that everything else goes on.

All of them are installed at once, beside those of the project. What the page shows is what really comes out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rigs.broken_plugins import SOURCES, install
from rigs.sked import SKED, Rig, service

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "broken-plugins.md").read_text()
NOT_LOADED = ("raises", "hangs", "exits", "types", "later")
PLACING = ("fails", "stuck", "mutates", "leaks", "prints")
"""Plugins with a scheduler that can be asked."""
HAS_TASK = ("mutates", "leaks", "prints")
"""Those of them that place, in spite of what else they do."""


def shown(heading: str) -> dict[str, list[str]]:
    """The cells of a table of the page behind the first one, by plugin."""
    table = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


def even(text: str) -> str:
    """Without what differs from run to run: seconds, names of hosts, how often something was tried."""
    text = re.sub(r"took \d+\.\d s", "took 1.2 s", text)
    text = re.sub(r"left alone for \d+ s", "left alone for 60 s", text)
    return re.sub(r"\ba-[0-9a-f]{6}\b", "HOST", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken")
    install(path)
    return path


@pytest.fixture
def broken(rig: Rig, folder: Path) -> Rig:
    """A rig whose processes find them all but for those for which everybody would have to wait each time."""
    rig.env["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    rig.env["SKED_PLUGINS_DENY"] = "sked-hangs,sked-slow"
    return rig


def test_what_sked_plugins_says_of_each_is_what_the_page_shows(broken: Rig) -> None:
    del broken.env["SKED_PLUGINS_DENY"]
    done = subprocess.run([SKED, "plugins", "-o", "json"], capture_output=True, text=True, env=broken.env, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    rows = {row["name"]: row for row in json.loads(done.stdout)["items"]}
    said = {}
    for name in SOURCES:
        row = rows[name]
        lines = [
            *filter(None, [row["error"]]),
            *(one for one in row["warnings"] if name == "slow" or "took" not in one),
        ]
        said[name] = [f"`{row['state']}`", "<br>".join(f"`{even(line)}`" for line in lines) or "nothing"]
    assert {name: cells[1:] for name, cells in shown("What is said of them").items()} == said
    assert rows["core"]["state"] == rows["bash"]["state"] == "ok" and rows["bash"]["provides"] == ["executor bash"]


def test_a_manifest_that_needs_one_is_told_so_and_one_that_does_not_is_valid(broken: Rig, tmp_path: Path) -> None:
    containers = [{"name": name, "type": name, "executor": {}} for name in (*NOT_LOADED, "ports")]
    manifest = service("all", container={"type": "bash"})
    manifest["task_definitions"][0]["containers"] = containers
    said = broken.sked("validate", "-f", "-", stdin=json.dumps(manifest), code=3, errors=True)
    found = {name: cells[0] for name, cells in shown("What who needs them is told").items()}
    for number, name in enumerate((*NOT_LOADED, "ports")):
        (line,) = re.findall(rf"containers\[{number}\]\.(?:type|executor \(ports\)): (.*)", said)
        if name == "hangs":
            line = line.replace("not imported: denied by SKED_PLUGINS_DENY", "broken: import took longer than 10 s")
        assert found[name] == f"`{line}`"
    assert "valid: 3 objects" in broken.sked("validate", "-f", "-", stdin=json.dumps(service("good")), errors=True)


def test_everything_else_goes_on_in_one_process_with_all_of_them(broken: Rig) -> None:
    process = broken.run("combined", host="a")
    services = [service("good", desired=2)]
    for name in PLACING:
        services.append(service(name, desired=1))
        services[-1]["services"][0]["scheduler"] = name
    services += [
        service(f"by-{name}", desired=1, container={"type": name, "executor": {"given": [1]}})
        for name in ("fails", "mutates")
    ]
    whole = {kind: [item for one in services for item in one[kind]] for kind in ("services", "task_definitions")}
    names = [one["name"] for one in whole["services"]]
    broken.apply({"clusters": [{"name": "default", "services": names}], **whole})

    def running() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for task in broken.items():
            if task["healthy"]:
                found.setdefault(task["service"], []).append(task)
        return found if set(found) >= {"good", "by-mutates", *HAS_TASK} and len(found["good"]) == 2 else {}

    tasks = broken.until("the tasks of all that can run", running, pause=1.0)
    (mutated,) = tasks["by-mutates"]
    assert mutated["task_definition"]["containers"][0]["executor"] == {"given": [1]}

    told = {name: cells[0] for name, cells in shown("What who needs them is told").items()}
    assert set(told) == {*NOT_LOADED, "ports", "stuck", "fails"}

    def reasons() -> bool:
        whys = {one["name"]: f"`{even(one['clusters'][0]['why'])}`" for one in broken.items("services")}
        return whys["stuck"] == told["stuck"] and f"{whys['fails']}<br>{whys['by-fails']}" == told["fails"]

    broken.until("the reasons on the page", reasons, pause=1.0)
    assert process.alive() and process.terminate() == 0
