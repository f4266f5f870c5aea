"""What an agent does about the policy of its host: at each start, and for what runs already."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sked_core.interfaces.executor import ExecutorContext
from sked_core.model import keys
from sked_core.model.policy import ChecksGate, Denial, Policy, SetupGate
from sked_core.model.types import Check, Container, Task
from sked_core.testing.builders import a_container, a_definition, a_task, an_open_policy
from sked_core.testing.fakes import FakeEngine, FakeExecutor

HOST = "h1"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as somebody else")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``StrictExecutor`` lets containers have."""

    sugar: bool = False

    @classmethod
    def development(cls) -> Section:
        return cls(sugar=True)


class StrictExecutor(FakeExecutor):
    """One that has a gate of its own, for containers with ``sugar``."""

    policy_type = Section

    def __init__(self, engine: FakeEngine, context: ExecutorContext) -> None:
        super().__init__(engine, context)
        self.policy = context.policy

    def denials(self, task: Task, container: Container) -> list[Denial]:
        if not container.executor.get("sugar") or self.policy.section("bash", Section).sugar:
            return []
        return [Denial("bash.sugar", f"container {container.name} asks for sugar", "bash: {sugar: true}")]


def service(**container: Any) -> Task:
    return a_task(HOST, 0, a_definition(containers=[a_container(**container)]), port=20007)


@pytest.fixture
def policed(solo: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``solo`` with an executor that has a gate of its own."""
    monkeypatch.setattr(FakeEngine, "executor", lambda engine, context: StrictExecutor(engine, context))
    return solo


def under(solo: Any, policy: Policy) -> None:
    """The agent is started anew, under ``policy``; what runs goes on."""
    solo.settings = {"policy": policy}
    solo.crash()
    solo.settle()


def reason(solo: Any, task: Task) -> str:
    solo.pass_time(5)
    record = solo.mine(task)
    return str(record["reject_reason"]) if record["rejected"] else ""


ASKED = [
    ("executors", {}, Policy()),
    ("setup.allow", {"setup": ["true"]}, Policy(executors=["bash"])),
    ("checks.scripts", {"checks": [Check(script="true")]}, Policy(executors=["bash"])),
    ("checks.targets", {"checks": [Check(tcp="10.0.0.9:22")]}, Policy(executors=["bash"])),
    ("bash.sugar", {"executor": {"sugar": True}}, Policy(executors=["bash"])),
]


@pytest.mark.parametrize(("gate", "asked", "policy"), ASKED, ids=[one[0] for one in ASKED])
def test_what_is_denied_does_not_start_and_says_the_gate_and_the_line(
    policed: Any, gate: str, asked: dict[str, Any], policy: Policy
) -> None:
    under(policed, policy)
    task = service(**asked)
    policed.issue(task)
    said = reason(policed, task)
    assert said.startswith(f"policy {gate}: ")
    assert "to allow it, add `" in said
    assert policed.engine.starts == []
    (event,) = policed.told("task.rejected")
    assert event.why == said


def test_all_gates_are_named_at_once(policed: Any) -> None:
    under(policed, Policy(executors=["bash"]))
    task = service(setup=["true"], checks=[Check(script="true")], executor={"sugar": True})
    policed.issue(task)
    said = reason(policed, task).splitlines()
    assert [line.split(":")[0] for line in said] == ["policy setup.allow", "policy checks.scripts", "policy bash.sugar"]


@pytest.mark.parametrize(("gate", "asked", "policy"), ASKED, ids=[one[0] for one in ASKED])
def test_a_policy_that_got_stricter_stops_nothing_and_blocks_the_next_start(
    policed: Any, gate: str, asked: dict[str, Any], policy: Policy
) -> None:
    under(policed, an_open_policy(sections={"bash": Section.development()}))
    task = service(**asked)
    policed.issue(task)
    policed.pass_time(5)
    assert policed.engine.running() == [task.id]

    under(policed, policy)
    policed.pass_time(30)
    assert policed.engine.running() == [task.id]
    assert policed.engine.starts == [task.id]
    assert not policed.mine(task)["rejected"]

    policed.engine.kill(task.id)
    policed.pass_time(60)
    assert policed.engine.running() == []
    assert policed.engine.starts == [task.id]
    assert reason(policed, task).startswith(f"policy {gate}: ")


def test_checks_that_got_denied_are_not_run_for_what_runs_and_it_is_told_once(policed: Any) -> None:
    under(policed, an_open_policy())
    own, far = Check(tcp="127.0.0.1:20007"), Check(tcp="10.0.0.9:22")
    task = service(checks=[own, far])
    policed.issue(task)
    policed.pass_time(5)
    assert policed.health.tasks[task.id].task_definition.containers[0].checks == [own, far]

    policed.health.tasks.clear()
    under(policed, Policy(executors=["bash"]))
    policed.pass_time(120)
    assert policed.health.tasks[task.id].task_definition.containers[0].checks == [own]
    (event,) = policed.told("task.unchecked")
    assert event.subject == f"task/{task.id}"
    assert event.why.startswith("policy checks.targets: ")


def test_a_host_offers_only_what_its_policy_names(policed: Any) -> None:
    for policy, offered in ((Policy(), []), (an_open_policy(), ["bash"])):
        under(policed, policy)
        policed.pass_time(5)
        assert policed.raw(keys.host(HOST))["executors"] == offered


def test_an_operator_s_flag_narrows_further(world: Any) -> None:
    world.agent(allow_executors=frozenset({"docker"}), policy=an_open_policy("bash", "docker"))
    task = a_task(HOST)
    world.issue(task)
    assert world.reason(task) == "executor bash is not available on this host (available: none)"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody may write into: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="sked-policy-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_setup_commands_run_as_the_policy_s_user_and_can_t_become_more(world: Any, open_folder: Path) -> None:
    note = open_folder / "note"
    command = (
        f"{{ id -un; id -G; umask; grep NoNewPrivs /proc/self/status; echo $HOME; touch x; stat -c %U x .; }} >{note}"
    )
    world.agent(policy=Policy(executors=["bash"], setup=SetupGate(allow=True, user="nobody")))
    task = service(setup=[command])
    world.issue(task)
    world.until_running(task)
    name, groups, umask, privileges, home, *owners = note.read_text().splitlines()
    assert (name, umask, privileges.split()[-1], home) == ("nobody", "0077", "1", "/nonexistent")
    assert groups == "65534"
    assert owners == ["nobody", "nobody"]
    assert note.stat().st_uid == 65534


@needs_root
def test_as_root_nothing_runs_where_no_user_is_named(world: Any, open_folder: Path) -> None:
    world.agent(policy=Policy(executors=["bash"], setup=SetupGate(allow=True)))
    task = service(setup=[f"touch {open_folder}/ran"])
    world.issue(task)
    assert world.reason(task) == (
        "policy setup.user: container web has setup commands, which run on the host itself, and no user is named for "
        "it but root; to allow it, add `setup: {allow: true, user: nobody}` to the host's policy and restart its agent"
    )
    assert list(open_folder.iterdir()) == []


@needs_root
def test_script_checks_run_as_the_policy_s_user(open_folder: Path) -> None:
    from sked_core.runtime.health.probe_checks import run_check

    gate = ChecksGate(scripts=True, user="nobody")
    script = "id -un; grep -o 'NoNewPrivs.*' /proc/self/status; pwd; echo ${SKED_SECRET-unset}"
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.pop, "SKED_SECRET", None)
        os.environ["SKED_SECRET"] = "canary"
        health = run_check(Check(script=script), service(), 10.0, gate)
    assert health is not None
    assert health.output.split() == ["nobody", "NoNewPrivs:", "1", "/", "unset"]
    refused = run_check(Check(script="id -un"), service(), 10.0, ChecksGate(scripts=True))
    assert refused is not None
    assert (refused.healthy, refused.output) == (False, "script: no user is named for it but root")
