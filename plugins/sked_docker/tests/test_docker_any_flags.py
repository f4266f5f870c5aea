"""Whatever is given as options: nothing raises, and nothing comes out that no rule judges. No engine."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.plugin import Denial, ExecutorContext, Limits, Policy
from sked_docker.cases import Case
from sked_docker.creation import creation
from sked_docker.flags import ALIASES, FLAGS, REFUSED
from sked_docker.gates import judge
from sked_docker.policy import DockerPolicy
from sked_docker.spec import parse, validate

EVERYTHING = Policy(sections={"docker": DockerPolicy.development()}, limits=Limits(pids=4_194_304, log_size=2**20))
CONTEXT = ExecutorContext(host="h", store_uid="u", state_dir=Path("/nonexistent"), policy=EVERYTHING)
SHARP = ("host", "container:x", "/:/h", "/etc:/h:rw,z", "type=bind,src=/,dst=/h", "ALL", "a=b", "1", "-1", "0", "true")


def flags_from(data: bytes) -> list[Denial] | None:
    """The options that the lines of ``data`` are, worked into a body and judged; None where one of them is no option.
    What else it raises is a mistake of ours. For fuzzers."""
    executor = {"image": "hello", "flags": data.decode("utf-8", "surrogateescape").split("\n")}
    if validate(executor):
        return None
    container = Container(name="main", type="docker", executor=executor)
    task = Task(
        cluster=Cluster(name="default"),
        task_definition=TaskDefinition(name="web", version=1, containers=[container]),
        service="web",
        host="h",
        port=20_000,
    )
    body = creation(CONTEXT, task, container, spec=parse(executor), env={}).body
    json.dumps(body)
    assert not [one for one in _judged(DockerPolicy.development(), body) if one.gate == "docker"]
    found = _judged(DockerPolicy(), body)
    assert all(str(one).isprintable() for one in found)
    shown = json.dumps(body["HostConfig"])
    for dangerous in ('"Privileged": true', '"PidMode": "host"', '"NetworkMode": "host"'):
        assert found or dangerous not in shown
    return found


def _judged(policy: DockerPolicy, body: dict[str, Any]) -> list[Denial]:
    return judge(dataclasses.replace(Case(policy, CONTEXT.policy.limits), port=20_000), body)


_names = st.sampled_from([*(flag.name for flag in FLAGS), *REFUSED, *ALIASES])
_values = st.sampled_from(SHARP) | st.text(max_size=30)
_item = st.builds(lambda name, mark, value: f"--{name}{mark}{value}", _names, st.sampled_from(["=", " ", ""]), _values)
_short = st.builds(lambda letter, value: f"-{letter}{value}", st.sampled_from("bcehlmpuvwditP"), _values)


@settings(deadline=None)
@given(st.lists(_item | _short | _values, max_size=6))
@example(["--privileged"])
@example(["--net", "host"])
@example(["-v/:/h:z,ro"])
def test_any_list_of_options_is_refused_or_judged(items: list[str]) -> None:
    flags_from("\n".join(items).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are(data: bytes) -> None:
    flags_from(data)


@settings(deadline=None)
@given(st.lists(st.builds(lambda flag, value: f"--{flag.name}={value}", st.sampled_from(FLAGS), _values), max_size=4))
def test_more_options_never_need_fewer_gates(items: list[str]) -> None:
    """But for those that replace another."""
    fewer, more = (flags_from("\n".join(some).encode("utf-8", "surrogatepass")) for some in (items[:-1], items))
    if fewer is None or more is None or not items:
        return
    added = {"docker.caps_add", "docker.devices", "docker.volumes", "docker.sysctls", "docker.ports", "docker.env"}
    assert {one.gate for one in fewer} & added <= {one.gate for one in more}
