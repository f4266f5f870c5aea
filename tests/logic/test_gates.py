"""Core's gates: each denies until the policy names it, and names the line that would."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sked_core.as_user import Account
from sked_core.logic.gates import Premises, allowed_checks, denials, target_problem
from sked_core.model.policy import MOST_TOLD, Denial, Policy, refusal
from sked_core.model.types import Check, Task
from sked_core.testing.builders import a_container, a_definition, a_task

USERS = {"root": 0, "nobody": 65534, "me": 1000}


def host(own: str) -> Premises:
    """A host whose agent runs as ``own``, called 10.0.0.7, where the task binds 8080."""

    def whose(user: str, *, root: bool) -> Account:
        uid = USERS.get(user or own)
        if uid is None:
            raise PermissionError(f"there is no user {user} on this host")
        if uid == 0 and not root:
            raise PermissionError("no user is named for it but root")
        if own != "root" and uid != USERS[own]:
            raise PermissionError(f"the agent runs as {own}: only root can run commands as {user}")
        return Account(user or own, uid, uid, (uid,), "/", "/bin/sh")

    return Premises(whose, frozenset({"10.0.0.7"}), frozenset({8080}))


def on(policy: Policy, line: str) -> Policy:
    """``policy`` with ``line`` added, as an operator would into what stands there already."""
    said = msgspec.to_builtins(policy)
    for section, value in yaml.safe_load(line).items():
        said[section] = said[section] | value if isinstance(value, dict) else value
    return msgspec.convert(said, Policy)


def with_container(**fields: Any) -> Task:
    kind = fields.pop("type", "docker")
    definition = {key: fields.pop(key) for key in ("memory_of_task", "cpu_of_task") if key in fields}
    whole = {"memory": definition.get("memory_of_task", 0), "cpu_units": definition.get("cpu_of_task", 0)}
    containers = [a_container("web", kind, **fields)]
    return a_task("h1", 0, a_definition(containers=containers, **whole), port=20007)


def with_check(**fields: str) -> Task:
    return with_container(checks=[Check(**fields)])


GATES = [
    ("executors", {"type": "bash"}, Policy()),
    ("executors", {"type": "bash"}, Policy(executors=[])),
    ("setup.allow", {"setup": ["true"]}, Policy()),
    ("checks.scripts", {"checks": [Check(script="true")]}, Policy()),
    ("checks.targets", {"checks": [Check(http="http://169.254.169.254/latest")]}, Policy()),
    ("checks.targets", {"checks": [Check(tcp="10.0.0.9:22")]}, Policy()),
    ("checks.targets", {"checks": [Check(http="http://[fe80::1]:81/")]}, Policy()),
    ("checks.targets", {"checks": [Check(http="http://x\\@evil/")]}, Policy()),
    ("limits.max_memory", {"memory": 600}, on(Policy(), "limits: {max_memory: 512}")),
    ("limits.max_memory", {"memory_of_task": 600}, on(Policy(), "limits: {max_memory: 512}")),
    ("limits.max_cpu_units", {"cpu_units": 600}, on(Policy(), "limits: {max_cpu_units: 512}")),
    ("limits.max_cpu_units", {"cpu_of_task": 600}, on(Policy(), "limits: {max_cpu_units: 512}")),
]  # fmt: skip


@pytest.mark.parametrize("own", ["root", "me"])
@pytest.mark.parametrize(("gate", "asked", "policy"), GATES, ids=lambda one: one if isinstance(one, str) else "")
def test_a_gate_denies_what_is_not_named_and_says_the_line_that_names_it(
    gate: str, asked: dict[str, Any], policy: Policy, own: str
) -> None:
    task, here = with_container(**asked), host(own)
    (denial,) = denials(policy, task, here)
    assert denial.gate == gate
    assert str(denial).startswith(f"policy {gate}: ")
    assert f"`{denial.line}`" in str(denial)
    assert denials(on(policy, denial.line), task, here) == []


@pytest.mark.parametrize("section", ["setup", "checks"])
@pytest.mark.parametrize(
    ("own", "gate", "said"),
    [
        ("root", {}, "no user is named for it but root"),
        ("root", {"user": "root"}, "no user is named for it but root"),
        ("root", {"user": "gone"}, "there is no user gone on this host"),
        ("me", {"user": "nobody"}, "the agent runs as me: only root can run commands as nobody"),
        ("me", {"user": "root"}, "no user is named for it but root"),
        ("me", {"user": "root", "root": True}, "the agent runs as me: only root"),
        ("me", {"user": "gone"}, "there is no user gone"),
    ],
)
def test_commands_run_as_somebody_who_is_named_and_is_not_root(
    section: str, own: str, gate: dict[str, Any], said: str
) -> None:
    switch = {"setup": "allow", "checks": "scripts"}[section]
    policy = on(Policy(), yaml.safe_dump({section: {switch: True, **gate}}))
    task = with_container(setup=["true"]) if section == "setup" else with_check(script="true")
    (denial,) = denials(policy, task, host(own))
    assert denial.gate == f"{section}.user"
    assert said in denial.what
    assert denials(on(policy, denial.line), task, host(own)) == []


@pytest.mark.parametrize("own", ["root", "me"])
def test_root_is_somebody_where_it_is_said_twice(own: str) -> None:
    policy = on(Policy(), "setup: {allow: true, user: root, root: true}")
    assert bool(denials(policy, with_container(setup=["id"]), host(own))) is (own == "me")
    policy = on(Policy(), "setup: {allow: true, root: true}")
    assert denials(policy, with_container(setup=["id"]), host(own)) == []


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1", "localhost", "LOCALHOST", "127.9.9.9", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.7"),
        *("user:secret@127.0.0.1",),
    ],
)
def test_its_own_port_at_this_host_s_own_names_may_be_asked(target: str) -> None:
    for port in ("$PROVIDED_PORT", "${PROVIDED_PORT}", "20007", "8080"):
        assert denials(Policy(), with_check(http=f"http://{target}:{port}/a?b#c"), host("me")) == []
        if "@" not in target:
            assert denials(Policy(), with_check(tcp=f"{target}:{port}"), host("me")) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8500/v1/kv/x",
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "http://127.0.0.1:20008/",
        "http://10.0.0.8:20007/",
        "http://169.254.169.254/",
        "http://metadata.example/",
        "http://localhost.:20007/",
        "http://127.1:20007/",
        "http://2130706433:20007/",
        "http://0x7f000001:20007/",
        "http://0177.0.0.1:20007/",
        "http://127.0.0.1:20007@evil/",
        "http://127.0.0.1:20007\\@evil/",
        "http://evil#@127.0.0.1:20007/",
        "http://evil/@127.0.0.1:20007/",
        "http://127.0.0.1:20007\t@evil/",
        "http://127.0.0.1:20007 evil/",
        "http://127.0.0.1:20007\r\nHost: evil/",
        "http://127.0.0.1:020007x/",
        "http://127.0.0.1:$PROVIDED_PORT8500/",
        "http://１２７.0.0.1:20007/",
        "http://[::1%25eth0]:20007/",
        "ftp://127.0.0.1:20007/",
        "file:///etc/shadow",
        "//127.0.0.1:20007/",
        "HTTP:127.0.0.1:20007",
    ],
)  # fmt: skip
def test_whatever_else_may_not(url: str) -> None:
    (denial,) = denials(Policy(), with_check(http=url), host("me"))
    assert denial.gate == "checks.targets"
    assert str(denial).isprintable()


@pytest.mark.parametrize(
    ("bound", "may"),
    [
        ("::1", {"[::1]"}),
        ("127.0.0.1", {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"}),
        ("10.0.0.7", {"10.0.0.7"}),
        ("0.0.0.0", {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.9.9.9", "10.0.0.7"}),
    ],
)
def test_a_port_on_one_address_is_its_own_on_no_other(bound: str, may: set[str]) -> None:
    """Who published [::1]:8500 had the agent ask the Consul at 127.0.0.1:8500, also where that was the task's port."""
    here = Premises(host("me").whose, frozenset({"10.0.0.7"}), sockets=frozenset({(bound, 8500)}))
    everywhere = {"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.9.9.9", "10.0.0.7"}
    for port in (8500, 20007):
        found = set()
        for target in everywhere:
            task = msgspec.structs.replace(with_check(http=f"http://{target}:8500/v1/kv/x"), port=port)
            found |= set() if denials(Policy(), task, here) else {target}
        assert found == may


def test_a_task_without_a_port_has_none_to_ask() -> None:
    task = msgspec.structs.replace(with_check(http="http://127.0.0.1:$PROVIDED_PORT/"), port=0)
    here = Premises(host("me").whose)
    assert [one.gate for one in denials(Policy(), task, here)] == ["checks.targets"]
    assert denials(Policy(), task, host("me")) != []


@pytest.mark.parametrize(
    ("targets", "url", "allowed"),
    [
        (["db.example:5432"], "http://db.example:5432/", True),
        (["DB.example:5432"], "http://db.EXAMPLE:5432/", True),
        (["db.example:*"], "http://db.example/", True),
        (["db.example:80"], "http://db.example/", True),
        (["db.example:443"], "https://db.example/", True),
        (["db.example:80"], "https://db.example/", False),
        (["db.example:5432"], "http://db.example:5433/", False),
        (["b.example:5432"], "http://db.example:5432/", False),
        (["example:*"], "http://db.example:5432/", False),
        (["10.0.0.1:80"], "http://10.0.0.10/", False),
        (["[fe80::1]:80"], "http://[fe80:0::1]/", True),
        (["*"], "http://anything.at/all", True),
    ],
)
def test_a_target_is_named_whole(targets: list[str], url: str, allowed: bool) -> None:
    assert [target_problem(one) for one in targets] == [""] * len(targets)
    policy = on(Policy(), yaml.safe_dump({"checks": {"targets": targets}}))
    assert (denials(policy, with_check(http=url), host("me")) == []) is allowed


@pytest.mark.parametrize(
    "target", ["", "db", "db:", ":80", "http://db:80", "*:80", "db:80/x", "d b:80", "db:80\n", "**"]
)
def test_what_no_target_can_be(target: str) -> None:
    assert "HOST:PORT" in target_problem(target)


@given(text=st.text(), port=st.integers(0, 65535))
def test_no_text_makes_a_gate_fail_or_speak_more_than_a_line(text: str, port: int) -> None:
    checks = [Check(http=text), Check(tcp=text), Check(http=f"http://{text}:{port}/"), Check(tcp=f"127.0.0.1:{text}")]
    task = with_container(type=text, setup=[text], checks=checks)
    for denial in denials(Policy(), task, host("root")):
        assert str(denial).isprintable()
        assert isinstance(yaml.safe_load(denial.line), dict)


def test_an_executor_s_line_names_all_that_the_task_needs() -> None:
    containers = [a_container("a", "bash"), a_container("b", "podman"), a_container("c", "docker")]
    found = denials(Policy(), a_task("h1", 0, a_definition(containers=containers)), host("me"))
    assert [one.what for one in found] == [
        "container a is of type bash, which this host does not run",
        "container b is of type podman, which this host does not run",
    ]
    assert {one.line for one in found} == {"executors: [docker, bash, podman]"}


def test_what_runs_keeps_the_checks_that_are_still_allowed() -> None:
    well, script, far = Check(http="http://127.0.0.1:20007/"), Check(script="true"), Check(tcp="10.0.0.9:22")
    task = with_container(checks=[script, well, far])
    allowed, denied = allowed_checks(Policy(), task, host("me"))
    assert allowed.task_definition.containers[0].checks == [well]
    assert [one.gate for one in denied] == ["checks.scripts", "checks.targets"]
    assert allowed_checks(Policy(), with_container(), host("me")) == (with_container(), [])


def test_a_refusal_has_a_line_for_each_of_the_first_few() -> None:
    found = [Denial(f"gate.{number}", "something", "a: b") for number in range(MOST_TOLD + 2)]
    lines = str(refusal(found)).splitlines()
    assert len(lines) == MOST_TOLD + 1
    assert lines[0] == "policy gate.0: something; to allow it, add `a: b` to the host's policy and restart its agent"
    assert lines[-1] == "and 2 more"
    assert len(str(refusal(found[:1])).splitlines()) == 1


def test_unset_is_denied_in_every_section() -> None:
    """What there is to allow, is off, empty or the agent's own by default: none of it says yes by being left out."""
    said = msgspec.to_builtins(Policy())
    assert said.pop("limits") == {
        **{"default_memory": 512, "max_memory": 0, "max_cpu_units": 0, "pids": 4096, "log_size": 10, "log_files": 3}
    }
    assert said.pop("executors") == ["docker"]
    for most in ("max_bytes", "max_files", "seconds", "cache_bytes"):
        assert said["artifacts"].pop(most) > 0
    assert (said["secrets"].pop("provider"), said["secrets"].pop("look_seconds")) == ("file", 60)
    assert said["signing"].pop("max_age") == "24h"
    for section, gates in said.items():
        for name, value in gates.items():
            assert not value, f"{section}.{name}"
