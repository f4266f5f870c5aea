"""The doors of artifacts: what may not be fetched is denied by the host, and an archive that is not plain is refused as
a whole by the process that unpacks it, with nothing outside of the folder that it was to go to."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from hostile.archives import everything
from hostile.conftest import Notes
from hostile.corpus import Case, manifests
from rigs.artifacts import check_tree
from sked_bash import unpack
from sked_bash.executor import BashExecutor
from sked_bash.rights import BashPolicy
from sked_core.model.types import Task
from sked_core.plugin import Artifacts, ExecutorContext, ExecutorError, Policy, Rejected
from sked_core.testing.builders import a_container, a_definition, a_task

DOOR = "artifact"
GATED = [case for case in manifests() if case.category == "G" and case.pieces()[0] == "policy"]


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", GATED, ids=lambda case: case.name)
def test_an_executor_denies_it_before_it_asks_anybody(case: Case, tmp_path: Path, notes: Notes) -> None:
    """Also where it is started without having been asked first, and nothing of a password is told."""
    policy = Policy(executors=["bash"], sections={"bash": BashPolicy.development()})
    executor = BashExecutor(ExecutorContext("h", "s", tmp_path / "state", policy))
    task = _task(case)
    (container,) = task.task_definition.containers
    _, gate = case.pieces()
    assert gate in [denial.gate for denial in executor.denials(task, container)]
    with pytest.raises(Rejected, match=gate) as caught:
        executor.start(task, container, {})
    executor.close()
    assert "canary" not in str(caught.value)
    notes.add(case, "denied")


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", [case for case in GATED if "metadata" in case.name], ids=lambda case: case.name)
def test_metadata_services_stay_out_of_reach_whatever_the_policy_says(case: Case, tmp_path: Path) -> None:
    everything = Artifacts(plain_http=True, without_checksum=True, private_addresses=True)
    policy = Policy(executors=["bash"], sections={"bash": BashPolicy.development()}, artifacts=everything)
    executor = BashExecutor(ExecutorContext("h", "s", tmp_path / "state", policy))
    task = _task(case)
    with pytest.raises(Rejected, match="private_addresses"):
        executor.start(task, task.task_definition.containers[0], {})
    executor.close()


def _task(case: Case) -> Task:
    (found,) = yaml.safe_load(case.data)["task_definitions"][0]["containers"]
    return a_task("h", 0, a_definition(containers=[a_container(type="bash", executor=found["executor"])]))


@pytest.mark.parametrize(("name", "file_name", "body"), everything(), ids=lambda one: str(one)[:60])
def test_a_hostile_archive_is_refused_and_nothing_escapes(
    name: str, file_name: str, body: bytes, tmp_path: Path, notes: Notes
) -> None:
    outside = tmp_path / "outside"
    (home := outside / "home").mkdir(parents=True)
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        source = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(ExecutorError) as caught:
                unpack.run(
                    source, folder, name=file_name, to="", unpack=True, max_bytes=1_000_000, max_files=100,
                    deadline=time.monotonic() + 60, called_off=threading.Event(),
                )  # fmt: skip
        finally:
            os.close(source)
            os.close(folder)
    assert caught.value.permanent
    assert str(caught.value).isprintable()
    assert [path.name for path in outside.iterdir()] == ["home"]
    assert not Path("/tmp/sked-escaped").exists()
    check_tree(home)
    notes.add(Case(name, "reject", body), "refused")
