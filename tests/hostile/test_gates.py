"""What an apply takes because only the host can say whether it may be: under a policy that says nothing, each option of
`docker run` in the long lists is denied by its gate, however it is spelt, or gives nothing of the host."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hostile.conftest import Notes
from hostile.corpus import Case, manifests
from sked_core.plugin import ExecutorContext, Policy
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_docker.executor import DockerExecutor

DOOR = "gates"
OPTIONS = [case for case in manifests() if case.category == "E" and case.pieces()[0] == "policy"]
HARMLESS = {
    "E10-flag-09": "the driver of no volume",
    "E14-flag-21": "no limit means that of the policy",
    "E14-flag-33": "an engine has no image for it",
    "E16-flag-04": "all of it is the name of a host",
}


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: case.name)
def test_an_option_that_opens_the_host_is_denied_where_nobody_has_allowed_it(case: Case, notes: Notes) -> None:
    context = ExecutorContext(host="h", store_uid="u", state_dir=Path("/nonexistent"), policy=Policy())
    (found,) = yaml.safe_load(case.data)["task_definitions"][0]["containers"]
    task = a_task("h", 0, a_definition(containers=[a_container(type="docker", executor=found["executor"])]))
    denials = DockerExecutor(context).denials(task, task.task_definition.containers[0])
    assert bool(denials) == (case.name not in HARMLESS), denials
    assert all(denial.gate and denial.line and str(denial).isprintable() for denial in denials)
    notes.add(case, "denied" if denials else "normalised")
