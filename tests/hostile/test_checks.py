"""The door of health checks: what a host's policy does not name is asked for by nobody, and what may be asked costs its
time and its few kilobytes, whatever it answers."""

from __future__ import annotations

import time

import msgspec
import pytest
import yaml

from hostile.conftest import Notes
from hostile.corpus import Case, manifests
from rigs.artifacts import Site, answering, dripping, endless, redirect, serving
from sked_core.as_user import Account, own_account
from sked_core.logic.gates import Premises, allowed_checks, denials
from sked_core.model.policy import ChecksGate, Policy
from sked_core.model.types import Check, Task
from sked_core.runtime.health.probe_checks import OUTPUT_BYTES, run_check
from sked_core.testing.builders import a_container, a_definition, a_task

DOOR = "check"
GATED = [case for case in manifests() if case.category == "H" and case.pieces()[0] == "policy"]
OWN_PORT = 20007


def whose(user: str, *, root: bool) -> Account:
    return own_account()


HERE = Premises(whose, frozenset({"10.9.8.7"}), frozenset({OWN_PORT}))


def asking(*checks: Check) -> Task:
    return a_task("h", 0, a_definition(containers=[a_container("web", "docker", checks=list(checks))]), port=OWN_PORT)


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", GATED, ids=lambda case: case.name)
def test_a_host_that_names_nothing_denies_it_before_a_start_and_does_not_run_it_after(case: Case, notes: Notes) -> None:
    (found,) = yaml.safe_load(case.data)["task_definitions"][0]["containers"]
    task = asking(*msgspec.convert(found["checks"], list[Check]))
    _, gate = case.pieces()
    assert [denial.gate for denial in denials(Policy(), task, HERE)] == [gate]
    kept, denied = allowed_checks(Policy(), task, HERE)
    assert [denial.gate for denial in denied] == [gate]
    assert kept.task_definition.containers[0].checks == []
    notes.add(case, "denied")


PAGES = {
    "hangs": lambda request: request.server.stopping.wait(60),
    "drips its headers": dripping("headers"),
    "drips its body": dripping("body"),
    "has headers without end": endless("headers"),
    "has a body without end": endless("body"),
    "leads in a circle": redirect("/"),
    "leads inside": redirect("http://169.254.169.254/latest/meta-data/"),
    "fails at length": answering(b"\x1b[2J<script>\x00\r" * 10**6, status=500),
    "claims a petabyte": answering(b"x", ("Content-Length", str(10**15))),
    "is encoded": answering(b"\x1f\x8b" + bytes(100), ("Content-Encoding", "gzip"), status=503),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_target_at_fault_costs_its_timeout_and_a_few_kilobytes(name: str) -> None:
    """F46 of the fault matrix."""
    with serving(Site()) as site:
        site.pages["/"] = PAGES[name]
        begun = time.monotonic()
        found = run_check(Check(http=f"{site.url}/"), asking(), 2.0, ChecksGate())
        took = time.monotonic() - begun
    assert found is not None
    assert took < 20
    assert len(found.output.encode()) <= OUTPUT_BYTES + 200
    assert found.healthy == (
        name in ("drips its body", "has headers without end", "has a body without end", "claims a petabyte")
    )
    assert len(site.asked) == 1, "no redirect is followed"


@pytest.mark.parametrize("rest", ["\r\nX-Evil: 1", " HTTP/1.1", "\n"])
def test_no_url_adds_a_header(rest: str) -> None:
    """H04, for a record that nobody validated."""
    with serving(Site()) as site:
        found = run_check(Check(http=f"{site.url}/{rest}"), asking(), 5.0, ChecksGate())
        assert found is not None and not found.healthy
        assert site.asked == []


def test_a_port_that_is_not_there_is_nobody_s() -> None:
    """H12: $PROVIDED_PORT of a task that has none."""
    check = Check(http="http://127.0.0.1:$PROVIDED_PORT/")
    task = a_task("h", 0, a_definition(containers=[a_container("web", "docker", checks=[check])]))
    assert [denial.gate for denial in denials(Policy(), task, Premises(whose))] == ["checks.targets"]
