"""Every hostile task of tests/hostile/bash, as an agent that is root runs it under a policy that names a user: what is
refused starts nothing, and what runs reaches nothing that it is not to, and is gone after its stop.

A case says what is found of it: the ``field`` that is wrong, the ``gate`` that denies it, or what the task ``says``,
that it ``fails``, or its exit ``code``; ``stays``: something of it goes on until it is stopped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sked_bash import groups
from sked_bash.rights import BashPolicy, denials
from sked_bash.spec import parse
from sked_core.plugin import Limits, Policy, Rejected, State

CORPUS = Path(__file__).resolve().parents[3] / "tests" / "hostile" / "bash"
Eventually = Callable[..., Any]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as somebody else")


def cases(*kinds: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{file.stem}-{number}")
        for file in sorted(CORPUS.glob("F*.yml"))
        for number, case in enumerate(yaml.safe_load(file.read_text()))
        if any(kind in case for kind in kinds)
    ]


@pytest.fixture(autouse=True)  # made before the rigs, and so removed after them
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sked-hostile-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make(make_rig: Callable[..., Any], folder: Path) -> Callable[[dict[str, Any]], Any]:
    def make(policy: dict[str, Any]) -> Any:
        bash = BashPolicy(**policy)
        return make_rig(folder / "state", Policy(sections={"bash": bash}, limits=Limits(pids=40, default_memory=64)))

    return make


def canaries(folder: Path) -> list[Path]:
    return [*folder.rglob("canary"), *Path("/tmp").glob("canary")]


def test_every_part_of_the_category_has_cases() -> None:
    there = {file.stem[:3] for file in CORPUS.glob("F*.yml")}
    assert there == {f"F{number:02d}" for number in range(1, 12) if number != 9}, (
        "F9 is a gate of core's, for all types"
    )
    assert len(cases("field", "gate", "says", "fails", "code", "grouped")) == len(cases("executor"))


@pytest.mark.parametrize("case", cases("field"))
def test_what_is_no_task_is_refused_by_its_field(case: dict[str, Any], make: Any) -> None:
    rig = make({"run_as": "nobody"})
    found = [problem.path for problem in rig.executor.validate(case["executor"])]
    assert case["field"] in found
    with pytest.raises(Rejected):
        rig.executor.start(*rig.task(**case["executor"]), {})
    assert rig.executor.denials(*rig.task(**case["executor"])) == [], "said elsewhere"
    assert not rig.folder.exists()


@pytest.mark.parametrize("case", cases("gate"))
def test_what_is_not_allowed_is_denied_by_its_gate(case: dict[str, Any], make: Any) -> None:
    rig = make(case.get("policy", {"run_as": "nobody"}))
    with pytest.raises(Rejected, match=f"policy {case['gate']}: .*to allow it, add `bash: "):
        rig.executor.start(*rig.task(**case["executor"]), case.get("env", {}))
    assert not rig.folder.exists(), "nothing of it ran"
    spec, policy = parse(case["executor"]), rig.executor._policy
    while found := [one for one in denials(policy, spec, case.get("env", ())) if one.gate == case["gate"]]:
        said = yaml.safe_load(found[0].line)["bash"]
        assert msgspec.to_builtins(policy) | said != msgspec.to_builtins(policy), (
            "the line that it names changes something"
        )
        policy = msgspec.convert(msgspec.to_builtins(policy) | said, BashPolicy)


@pytest.mark.parametrize("case", cases("says", "fails", "code", "grouped"))
def test_what_runs_reaches_nothing_else_and_is_gone_with_its_stop(
    case: dict[str, Any], make: Any, folder: Path, eventually: Eventually
) -> None:
    if case.get("grouped") and not {"memory", "pids"} <= groups.here().controllers:
        pytest.skip(f"no control groups can be used here: {groups.here().lacks}")
    rig = make({"run_as": "nobody"})
    words = {"STATE": str(rig.folder), "AGENT": str(os.getpid())}
    executor = {
        name: text.replace("STATE", words["STATE"]).replace("AGENT", words["AGENT"])
        for name, text in case["executor"].items()
        if isinstance(text, str)
    }
    handle = rig.executor.start(*rig.task(**case["executor"] | executor), case.get("env", {}))

    def seen() -> Any:
        return rig.executor.inspect([handle])[handle]

    if "says" in case:
        eventually(lambda: case["says"] in rig.output(handle), 60)
    if case.get("stays"):
        if case.get("grouped"):
            eventually(lambda: len(groups.pids(rig.executor._known(handle).groups)) > 20, 60)
            assert len(groups.pids(rig.executor._known(handle).groups)) <= 40
        assert seen().state is State.RUNNING
    else:
        eventually(lambda: seen().state is State.EXITED, 60)
        assert not case.get("fails") or seen().exit_code
        assert seen().exit_code == case.get("code", seen().exit_code)
    assert canaries(folder) == []
    known = list(rig.executor._known(handle).groups)
    rig.executor.stop(handle, 1)
    assert rig.marked() == []
    assert groups.pids(known) == set()
    assert canaries(folder) == []
