"""Every hostile container of tests/hostile/docker, against the policy that allows nothing. No engine."""

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from rigs.policies import with_line
from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.plugin import Denial, ExecutorContext, Limits, Policy
from sked_docker.cases import Case
from sked_docker.executor import DockerExecutor
from sked_docker.flags import FLAGS
from sked_docker.gates import RULES, judge
from sked_docker.policy import DockerPolicy
from sked_docker.spec import validate

CORPUS = Path(__file__).resolve().parents[3] / "tests" / "hostile" / "docker"
SHORT = {flag.name: flag.short for flag in FLAGS if flag.short}
SWITCHES = {flag.name for flag in FLAGS if flag.switch}


def spellings(name: str, value: str) -> list[list[str]]:
    """One option in all the ways in which it may be written."""
    quoted = shlex.quote(value)
    found = [[f"--{name}={value}"]]
    if name not in SWITCHES:
        found += [[f"--{name}", value], [f"--{name} {quoted}"], [f"--{name}\t {quoted}"]]
    if name in SHORT:
        found += [[f"-{SHORT[name]}{value}"], [f"-{SHORT[name]}={value}"], [f"-{SHORT[name]}", value]]
    return found


def cases() -> list[Any]:
    found = []
    for file in sorted(CORPUS.glob("E*.yml")):
        for number, case in enumerate(yaml.safe_load(file.read_text())):
            option = case.get("option")
            ways = [{"flags": way} for way in spellings(**option)] if option else [case["executor"]]
            for way, executor in enumerate(ways):
                found.append(pytest.param(executor, case, id=f"{file.stem}-{number}-{way}"))
    return found


def task_of(executor: dict[str, Any], *, port: int = 20_000) -> Task:
    definition = TaskDefinition(
        name="web",
        version=1,
        containers=[Container(name="main", type="docker", executor={"image": "hello"} | executor)],
    )
    return Task(cluster=Cluster(name="default"), task_definition=definition, service="web", host="h", port=port)


def denials(task: Task, policy: Policy) -> list[Denial]:
    context = ExecutorContext(host="h", store_uid="u", state_dir=Path("/nonexistent"), policy=policy)
    return DockerExecutor(context).denials(task, task.task_definition.containers[0])


@pytest.mark.parametrize(("executor", "case"), cases())
def test_a_hostile_container_meets_its_gate_in_every_spelling(executor: dict[str, Any], case: dict[str, Any]) -> None:
    problems = [problem.path for problem in validate({"image": "hello"} | executor)]
    if "field" in case:
        assert problems[:1] == [case["field"]]
        assert denials(task_of(executor), Policy()) == []
        return
    assert problems == []
    task, policy = task_of(executor), Policy()
    found = denials(task, policy)
    assert (case.get("gate") in [denial.gate for denial in found]) is ("gate" in case), found
    assert ("taken" in case) is (found == []), found
    for denial in found:
        assert str(denial).isprintable()
        policy = with_line(policy, denial.line, docker=DockerPolicy)
    assert denials(task, policy) == []
    assert denials(task, Policy(sections={"docker": DockerPolicy.development()}, limits=policy.limits)) == []


@pytest.mark.parametrize(("executor", "case"), [one for one in cases() if "gate" in one.values[1]])
def test_each_gate_is_needed_whatever_the_others_allow(executor: dict[str, Any], case: dict[str, Any]) -> None:
    section, _, gate = case["gate"].partition(".")
    if section == "docker":
        shut = msgspec.structs.replace(DockerPolicy.development(), **{gate: getattr(DockerPolicy(), gate)})
        if gate == "volumes":
            shut = msgspec.structs.replace(shut, guarded_paths=False)
        if gate == "registries":
            shut = msgspec.structs.replace(shut, private_registries=False)
        assert case["gate"] in [denial.gate for denial in denials(task_of(executor), Policy(sections={"docker": shut}))]
    else:
        everything = Policy(sections={"docker": DockerPolicy.development()})
        assert case["gate"] in [denial.gate for denial in denials(task_of(executor), everything)]


def test_the_line_of_a_denial_keeps_what_the_policy_allows_already() -> None:
    policy = Policy(sections={"docker": DockerPolicy(caps_add=["NET_ADMIN"], volumes=["/srv/a b", "/srv/no:rw"])})
    executor = {"flags": ["--cap-add=SYS_TIME"], "volumes": ["/srv/y\u00e9:/d"]}
    assert [denial.line for denial in denials(task_of(executor), policy)] == [
        'docker: {volumes: ["/srv/a b", "/srv/no:rw", "/srv/y\u00e9:rw"]}',
        "docker: {caps_add: [NET_ADMIN, SYS_TIME]}",
    ]


def test_each_option_leads_to_a_key_that_has_a_rule() -> None:
    def judged_at(target: str) -> str:
        return "HostConfig.LogConfig" if target.startswith("HostConfig.LogConfig.") else target

    # Platform goes into the call's own parameters, and chooses among images.
    assert {flag.target for flag in FLAGS if judged_at(flag.target) not in RULES} == {"Platform"}


def test_what_no_rule_knows_is_denied() -> None:
    for body in ({"New": 1}, {"HostConfig": {"New": 1}}, {"NetworkingConfig": {"New": 1}}, {"Healthcheck": {"New": 1}}):
        found = judge(Case(DockerPolicy.development(), Limits(pids=4_194_304)), body)
        assert [denial.gate for denial in found] == ["docker"]
    mounts = [{"Type": "npipe", "Source": "x", "Target": "/x"}]
    mounts += [{"Type": "volume", "Source": "", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}]
    found = judge(Case(DockerPolicy.development(), Limits(pids=4_194_304)), {"HostConfig": {"Mounts": mounts}})
    assert [denial.gate for denial in found] == ["docker", "docker"]


def test_every_gate_has_a_row_in_the_readme() -> None:
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    table = text.partition("| gate | what it opens |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(DockerPolicy.__struct_fields__)


@pytest.mark.parametrize(
    "section",
    [
        {"volumes": ["relative"]},
        {"volumes": ["/a/../b"]},
        {"volumes": ["/a/:rw"]},
        {"ports": ["0"]},
        {"ports": ["9-1"]},
        {"ports": ["http"]},
        {"flags": ["-v"]},
        {"flags": ["--dns=10.0.0.1"]},
        {"host_namespaces": ["time"]},
        {"priviliged": True},
        {"privileged": "yes"},
    ],
    ids=str,
)
def test_a_section_with_a_mistake_is_no_section(section: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, DockerPolicy)


def test_a_long_text_is_refused_as_well() -> None:
    for executor, field in (
        ({"image": "a" * 10_000}, "image"),
        ({"cmd": ["x" * 3_000_000]}, "cmd"),
        ({"env": ["A=" + "x" * 1_000_000]}, "env[0]"),
    ):
        assert [problem.path for problem in validate({"image": "hello"} | executor)] == [field]


def test_the_corpus_has_all_kinds() -> None:
    kinds = {file.stem.partition("-")[0] for file in CORPUS.glob("E*.yml")}
    # E22, an image that forks without end, takes an engine: test_docker_policy.py.
    assert kinds == {f"E{number:02}" for number in range(1, 24) if number != 22}


@pytest.mark.parametrize("name", ["LocalHost:5000/x", "LOCALHOST/x", "ip6-localhost:5000/x", "localhost.localdomain/x"])
def test_a_registry_on_this_machine_is_one_however_it_is_spelled(name: str) -> None:
    assert [one.gate for one in denials(task_of({"image": name}), Policy())] == ["docker.registries"]


@pytest.mark.parametrize(("seconds", "allowed"), [(-1, False), (0, True), (300, True), (301, False)])
def test_no_container_keeps_the_engine_from_stopping(seconds: int, allowed: bool) -> None:
    flags = {"flags": [f"--stop-timeout={seconds}"]}
    assert [one.gate for one in denials(task_of(flags), Policy())] == ([] if allowed else ["docker.flags"])
