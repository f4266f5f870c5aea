"""What a manifest may say of a unit, what a host allows of it, and the properties that come of both. No systemd."""

from __future__ import annotations

import pwd

import pytest

from sked_core.plugin import Container, Limits, Policy, Task, TaskDefinition
from sked_core.testing.builders import a_task
from sked_systemd.spec import SANDBOX, SystemdPolicy, SystemdSpec, denials, problems, properties_of


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({}, "start"),
        ({"start": ""}, "start"),
        ({"start": "a\0b"}, "start"),
        ({"start": "a\ud800b"}, "start"),
        ({"start": "x", "user": "../root"}, "user"),
        ({"start": "x", "user": "0"}, "user"),
        ({"start": "x", "user": "root\n"}, "user"),
        ({"start": "x", "properties": {"ExecStartPreEx": "+/bin/sh"}}, "properties.ExecStartPreEx"),
        ({"start": "x", "working_directory": "srv"}, "working_directory"),
        ({"start": "x", "env": {"A=B": "c"}}, "env"),
        ({"start": "x", "env": {"A": "\0"}}, "env.A"),
        ({"start": "x", "properties": {"limitnofile": "5"}}, "properties"),
        ({"start": "x", "properties": {"ExecStart": "/bin/true"}}, "properties.ExecStart"),
        ({"start": "x", "properties": {"EnvironmentFile": "/etc/shadow"}}, "properties.EnvironmentFile"),
        ({"start": "x", "properties": {"Nice": "5\nUser=root"}}, "properties.Nice"),
        ({"start": "x", "what": 1}, "what"),
    ],
)
def test_a_mistake_is_named_by_its_place(spec, path):
    assert [problem.path for problem in problems(spec)] == [path]


def test_what_it_takes_is_taken():
    assert problems({"start": "exec x", "env": {"A": 'ü\n"$x"'}, "properties": {"LimitNOFILE": "1024"}}) == []


def refused(policy: SystemdPolicy, **spec: object) -> list[str]:
    return [denial.gate for denial in denials(policy, SystemdSpec(start="x", **spec))]  # type: ignore[arg-type]


def test_what_the_policy_does_not_say_is_denied():
    assert refused(SystemdPolicy()) == []
    assert refused(SystemdPolicy(), user="root") == ["systemd.root"]
    assert refused(SystemdPolicy(users=["*"]), user="root") == ["systemd.root"]
    assert refused(SystemdPolicy(run_as="root")) == ["systemd.root"]
    assert refused(SystemdPolicy(root=True), user="root") == []
    assert refused(SystemdPolicy(), user="web") == ["systemd.users"]
    assert refused(SystemdPolicy(users=["web"]), user="web") == []
    assert refused(SystemdPolicy(run_as="web"), user="web") == []
    assert refused(SystemdPolicy(users=["*"]), user="web") == []
    assert refused(SystemdPolicy(), properties={"CPUQuota": "50%"}) == []
    assert refused(SystemdPolicy(), properties={"ProtectSystem": "no"}) == ["systemd.properties"]
    assert refused(SystemdPolicy(properties=["ProtectSystem"]), properties={"ProtectSystem": "no"}) == []
    assert refused(SystemdPolicy(properties=["*"]), properties={"ProtectSystem": "no"}) == []
    assert refused(SystemdPolicy.development(), user="root", properties={"BindPaths": "/root"}) == []


def test_root_is_root_by_whatever_name(monkeypatch):
    toor = pwd.struct_passwd(("toor", "x", 0, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"toor": toor}.__getitem__)
    assert refused(SystemdPolicy(users=["*"]), user="toor") == ["systemd.root"]
    assert refused(SystemdPolicy(users=["toor"]), user="toor") == ["systemd.root"]
    assert refused(SystemdPolicy(run_as="toor")) == refused(SystemdPolicy(run_as="0")) == ["systemd.root"]
    assert refused(SystemdPolicy(users=["toor"], root=True), user="toor") == []


def test_to_be_given_more_than_others_takes_leave():
    assert refused(SystemdPolicy(), properties={"CPUWeight": "10000"}) == ["systemd.properties"]
    assert refused(SystemdPolicy(properties=["CPUWeight"]), properties={"CPUWeight": "10000"}) == []


def made(policy: Policy, container: Container, *others: Container, **spec: object) -> dict[str, str]:
    definition = TaskDefinition(name="web", version=1, memory=300, containers=[container, *others])
    task: Task = a_task(definition=definition)
    return properties_of(policy, SystemdSpec(start="x", **spec), task, container)  # type: ignore[arg-type]


def test_every_task_is_in_the_sandbox_and_has_limits():
    policy = Policy(limits=Limits(default_memory=100, pids=77))
    found = made(policy, Container(name="c", type="systemd", memory=64, cpu_units=2048))
    assert found.items() >= SANDBOX.items()
    assert (found["MemoryMax"], found["MemorySwapMax"], found["CPUWeight"], found["TasksMax"]) == (
        "64M",
        "0",
        "200",
        "77",
    )
    assert (found["DynamicUser"], found.get("User")) == ("yes", None)


def test_memory_is_the_tasks_where_there_is_one_container_and_else_the_policys():
    policy = Policy(limits=Limits(default_memory=100))
    bare, other = (Container(name=name, type="systemd") for name in ("c", "d"))
    assert made(policy, bare)["MemoryMax"] == "300M"
    assert made(policy, bare, other)["MemoryMax"] == "100M"


def test_what_a_task_sets_comes_before_the_sandbox_but_not_before_what_is_the_executors():
    bare = Container(name="c", type="systemd")
    found = made(Policy(), bare, user="web", properties={"ProtectSystem": "full", "Nice": "5"})
    assert (found["ProtectSystem"], found["Nice"]) == ("full", "5")
    assert (found["User"], "DynamicUser" in found, found["KillMode"]) == ("web", False, "control-group")
