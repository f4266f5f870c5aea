"""The ten plugins of docs/plugins/cookbook.md: put beside one another as they stand there, and used in one cluster."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from rigs.sked import Rig

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "plugins" / "cookbook.md"
FILE = re.compile(r"^`(sked_(\w+))\.py`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
POLICY = {
    "executors": ["flag", "timer"],
    "secrets": {
        "provider": "told",
        "providers": {"told": {"command": ["/bin/echo", "the value of"]}},
        "allow": {"*": ["greeting"]},
    },
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """All recipes as pip would leave them behind."""
    folder = tmp_path_factory.mktemp("cookbook")
    for module, name, text in FILE.findall(PAGE.read_text()):
        (folder / f"{module}.py").write_text(text)
        info = folder / f"{module}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.3\nName: sked-{name}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[sked]\n{name} = {module}\n")
    return folder


@pytest.fixture
def kitchen(shelf, tmp_path):
    """A host on which all of them are installed; what events and notes go to is set up."""
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    rig.env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(shelf), os.environ.get("PYTHONPATH"))))
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(POLICY))
    (tmp_path / "policy.yml").chmod(0o600)
    program = tmp_path / "on-failure"
    program.write_text(f'#!/bin/sh\necho "$SKED_EVENT $SKED_SUBJECT" >>{tmp_path}/failures\n')
    program.chmod(0o755)
    rig.env |= {"SKED_NOTES": str(tmp_path / "notes"), "SKED_AUDIT": str(tmp_path / "audit.jsonl")}
    rig.env |= {"SKED_ON_FAILURE": str(program), "SKED_POLICY": str(tmp_path / "policy.yml")}
    yield rig
    rig.clean_up()


def _service(
    name: str, kind: str, scheduler: str, spec: dict[str, object], desired: int = 2, **more: object
) -> dict[str, object]:
    containers = [{"name": "c", "type": kind, "executor": spec}]
    definition = {"name": name, "version": 1, "containers": containers, **more}
    service = {"name": name, "task_name": name, "task_version": 1, "scheduler": scheduler, "desired": desired}
    return {
        "clusters": [{"name": name, "services": [name]}],
        "services": [service],
        "task_definitions": [definition],
    }


def test_there_are_ten_and_each_is_listed_with_what_it_offers(kitchen):
    recipes = [name for _, name, _ in FILE.findall(PAGE.read_text())]
    assert len(recipes) == 10
    rows = {row["name"]: row for row in kitchen.items("plugins")}
    assert {name: rows[name]["error"] for name in recipes} == dict.fromkeys(recipes, "")
    offered = {offer for name in recipes for offer in rows[name]["provides"]}
    assert offered == {
        *("scheduler snug", "scheduler cards", "executor flag", "executor timer"),
        *("storage dump", "health sqlite", "secrets told"),
    }


def test_they_run_a_cluster_together(kitchen, tmp_path):
    kitchen.run("combined", host="a")
    kitchen.apply(_service("flags", "flag", "cards", {"env": {"WORD": {"secret": "greeting"}}}))
    kitchen.apply(_service("clocks", "timer", "snug", {}, tags=["team=time"], memory=10))
    tasks = kitchen.until("four tasks are known", lambda: len(kitchen.items()) == 4 and kitchen.items())
    registered = tmp_path / "notes" / "registered"
    ids = {task["id"] for task in tasks}
    kitchen.until("all run", lambda: registered.is_dir() and {path.name for path in registered.iterdir()} == ids)
    assert not any(task["healthy"] for task in kitchen.items()), "nobody has written a note"
    for task in ids:
        (tmp_path / "notes" / task).write_text("ok, says the monitoring\n")
    kitchen.until("all are healthy", kitchen.healthy(4))

    dump = tmp_path / "dump.json"
    dump.write_text(kitchen.sked("state", "dump"))
    dumped = json.loads(kitchen.sked("--backend", f"dump://{dump}", "tasks", "-o", "json"))["items"]
    assert {task["id"] for task in dumped} == ids
    told = kitchen.sked("--backend", f"dump://{dump}", "scale", "flags", "3", code=7, errors=True)
    assert "is a dump: nothing can be written" in told

    assert kitchen.sked("owners").split() == ["nobody", "2", "tasks", "0", "MB", "time", "2", "tasks", "20", "MB"]

    kitchen.apply(_service("short", "timer", "snug", {"seconds": 0.2, "code": 3}, desired=1))
    failures = tmp_path / "failures"
    kitchen.until("the failure was told", lambda: failures.exists() and "task.failed" in failures.read_text())
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {"task.issued", "service.applied", "task.failed"} <= {line["what"] for line in lines}


def test_a_secret_that_the_command_does_not_tell_is_a_reason(kitchen, tmp_path):
    policy = json.loads(json.dumps(POLICY))
    policy["secrets"]["providers"]["told"]["command"] = ["/bin/false"]
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(policy))
    kitchen.run("combined", host="a")
    kitchen.apply(_service("flags", "flag", "cards", {"env": {"WORD": {"secret": "greeting"}}}, desired=1))
    reasons = lambda: [task["reject_reason"] for task in kitchen.items() if task["rejected"]]  # noqa: E731
    assert "/bin/false ended with 1" in kitchen.until("it is rejected", reasons)[0]


def test_the_package_file_of_the_page_makes_a_wheel(build, shelf, tmp_path):
    project = tmp_path / "sked-snug"
    project.mkdir()
    text = re.search(r"^`pyproject.toml`:\n\n```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None
    (project / "pyproject.toml").write_text(text[1])
    (project / "sked_snug.py").write_text((shelf / "sked_snug.py").read_text())
    build(tmp_path / "dist", project)
    assert [wheel.name for wheel in (tmp_path / "dist").glob("*.whl")] == ["sked_snug-0.1.0-py3-none-any.whl"]


@pytest.mark.parametrize("sorts", [1, -1])
def test_cards_are_dealt_round_by_round_in_the_order_of_names(shelf, monkeypatch, sorts):
    monkeypatch.syspath_prepend(str(shelf))
    from sked_core.plugin import Candidate, Demand

    cards = sys.modules.pop("sked_cards", None) or __import__("sked_cards")
    hosts = [Candidate(name, 100, 0, 0, 100, 0, 0, 10, 0, 0) for name in ("a", "b", "c")][::sorts]
    demand = Demand("k", "s", memory=40)
    assert list(cards.Cards().place(demand, 5, hosts)) == ["a", "b", "c", "a", "b"]
    assert list(cards.Cards().place(demand, 9, hosts)) == ["a", "b", "c", "a", "b", "c"]
