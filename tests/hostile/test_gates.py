"""What an apply takes because only the host can say whether it may be: under a policy that says nothing, each option of
`docker run` in the long lists is denied by its gate, however it is spelt, or gives nothing of the host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from hostile import conftest
from hostile.conftest import Notes
from hostile.corpus import Case, manifests
from sked_core.plugin import ExecutorContext, Policy
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_docker import spec as specs
from sked_docker.creation import creation
from sked_docker.executor import DockerExecutor

DOOR = "gates"
OPTIONS = [case for case in manifests() if case.category == "E" and case.pieces()[0] == "policy"]
HARMLESS = {
    "E10-flag-09": lambda sent: not sent.body["HostConfig"]["Binds"] and "Mounts" not in sent.body["HostConfig"],
    "E14-flag-21": lambda sent: sent.body["HostConfig"]["Memory"] == Policy().limits.default_memory * 1024**2 > 0,
    "E14-flag-33": lambda sent: sent.query == {"platform": "x"},
    "E16-flag-04": lambda sent: sent.body["Hostname"] == "a --pid=host" and "PidMode" not in sent.body["HostConfig"],
}
"""What the engine is sent of these: the driver of no volume, the policy's limit instead of none, a platform that no
image is for, and a name that is all of it."""


def test_who_is_asked_is_heard_of() -> None:
    conftest._asked.clear()
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError):
        one.connect("/nonexistent/canary")
    assert conftest._asked == ["/nonexistent/canary"]
    conftest._asked.clear()


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: case.name)
def test_an_option_that_opens_the_host_is_denied_where_nobody_has_allowed_it(case: Case, notes: Notes) -> None:
    context = ExecutorContext(host="h", store_uid="u", state_dir=Path("/nonexistent"), policy=Policy())
    (found,) = yaml.safe_load(case.data)["task_definitions"][0]["containers"]
    task = a_task("h", 0, a_definition(containers=[a_container(type="docker", executor=found["executor"])]))
    container = task.task_definition.containers[0]
    denials = DockerExecutor(context).denials(task, container)
    assert bool(denials) == (case.name not in HARMLESS), denials
    if case.name in HARMLESS:
        sent = creation(context, task, container, spec=specs.parse(container.executor), env={})
        assert HARMLESS[case.name](sent), sent
    assert all(denial.gate and denial.line and str(denial).isprintable() for denial in denials)
    notes.add(case, "denied" if denials else "normalised")
