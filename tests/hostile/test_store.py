"""The second door: whoever can write the store. All records of the corpus at once are written past Sked, on each
engine, beside a service that runs; nothing of it may be touched, and everybody goes on working."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.conftest import SECRET, Notes
from hostile.corpus import Case, records
from hostile.make import definition, record
from rigs import raw
from rigs.contents import contents
from rigs.sked import PATIENCE, SKED, Rig, service
from sked_core.client.looking.linting import KINDS
from sked_core.errors import InvalidValue
from sked_core.model.codec import decode
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

DOOR = "store"
LOOKS = (
    *("status", "tasks", "services", "hosts", "clusters", "events", "status -o json", "tasks -o json", "hosts -o json"),
    *("describe service/probe", "describe service/c20-deadline", "explain service/probe", "doctor", "state ls"),
    "rollout status probe",
)
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
BY_SCHEDULERS = ("C20", "C21")
"""Cases of services that are listed, so that schedulers have to make something of them."""


@pytest.fixture(params=["embedded", "consul", "etcd"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    match request.param:
        case "embedded":
            url = f"sqlite://{tmp_path / 'sked.db'}"
        case kind:
            url = request.getfixturevalue(f"private_{kind}")().url
    rig = Rig(url, tmp_path)
    rig.env["CANARY_SECRET"] = SECRET
    yield rig
    rig.clean_up()


def unreadable(key: str, value: bytes) -> bool:
    """Whether a record says nothing to anybody."""
    prefix = max((one for one in KINDS if key.startswith(one)), key=len, default="")
    if not prefix or KINDS[prefix].of is None:
        return False
    try:
        decode(value, KINDS[prefix].of)
    except InvalidValue:
        return True
    return False


def look(rig: Rig, command: str) -> tuple[int, str]:
    """What it prints, which can drive no terminal, in the end."""
    done = subprocess.run([str(SKED), *command.split()], capture_output=True, text=True, env=rig.env, timeout=PATIENCE)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, f"{command}: {said[-3000:]}"
    assert not CONTROL.search(said.replace("\n", "")), f"{command}: {CONTROL.search(said)}"
    assert SECRET not in said
    return done.returncode, done.stdout


def test_whatever_stands_in_the_store_concerns_nobody_else(rig: Rig, notes: Notes, tmp_path: Path) -> None:
    agent, scheduler = rig.run("agent", host="a"), rig.run("scheduler")
    rig.hosts_ready(1)
    rig.apply(service("probe", desired=2))
    rig.until("two run", rig.healthy(2))
    before = rig.processes()
    cases = records()
    values = hostile_values(cases, rig.host("a"))
    refused = set(raw.write(rig.backend, values))
    listed = [case.name.lower() for case in cases if case.name.startswith(BY_SCHEDULERS)]
    raw.write(rig.backend, listing(listed))

    def still_the_same() -> bool:
        return {task: rig.processes().get(task) for task in before} == before

    scaled = rig.until("the store takes commands", lambda: look(rig, "scale probe 3")[0] == 0)
    assert scaled
    rig.until("the third one runs", lambda: len(of_probe(rig)) == 3)
    assert still_the_same() and agent.alive() and scheduler.alive()
    for command in LOOKS if rig.backend.startswith("sqlite") else LOOKS[:2]:  # they all look at the same
        assert look(rig, command)[0] in (0, 1), command
    code, said = look(rig, "state check -o json")
    found = {one["key"] for one in json.loads(said)["items"]}
    assert code == 1
    with contextlib.closing(open_store(rig.backend, Plugins.load())) as store:
        there = contents(store)
    for case in cases:  # some of it somebody has mended, or removed as what is over
        left = [key for key in case.keys(rig.host("a")) if key not in refused and there.get(key) == values[key]]
        assert {key for key in left if unreadable(key, values[key])} <= found, case.name
        notes.add(case, "isolated")
    a_repaired_record_is_acted_on(rig)
    assert still_the_same()
    raw.remove(rig.backend, [*values, *listing(listed)])
    rig.until("the store takes commands", lambda: look(rig, "scale probe 4")[0] == 0)
    rig.until("the fourth one runs", lambda: len(of_probe(rig)) == 4)
    rig.until("nothing else runs", lambda: len(rig.processes()) == 4)
    assert still_the_same() and agent.alive() and scheduler.alive()
    for proc in (agent, scheduler):
        log = proc.text()
        assert "Traceback" not in log and SECRET not in log
        assert not CONTROL.search(log.replace("\n", ""))
    assert not list(Path.cwd().iterdir())


def hostile_values(cases: list[Case], host: str) -> dict[str, bytes]:
    return {key: case.data for case in cases for key in case.keys(host)}


def listing(services: list[str]) -> dict[str, bytes]:
    """A cluster that lists services, and what they name, which can run."""
    cluster = {"name": "evil", "services": services}
    tasks = {f"config/task_definitions/{name}/1": definition(name) for name in services}
    return {key: json.dumps(value).encode() for key, value in {"config/clusters/evil": cluster, **tasks}.items()}


def of_probe(rig: Rig) -> list[str]:
    return [task for task in rig.processes() if task.startswith("default-probe-")]


def a_repaired_record_is_acted_on(rig: Rig) -> None:
    """Once there is something to be understood under a key, it is done."""
    task_id = "default-b06-truncated-1-0"
    key = f"state/hosts/{rig.host('a')}/{task_id}"
    good = record("b06-truncated", task_definition=definition("b06-truncated"))
    raw.write(rig.backend, {key: json.dumps(good).encode()})
    rig.until("the repaired one runs", lambda: task_id in rig.processes())
