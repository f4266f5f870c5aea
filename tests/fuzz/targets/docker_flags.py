"""Options of ``docker run``, one per line, and with them the whole ``executor`` object of a container: any text to the
body of the engine's create call."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sked_core.plugin import Container, ExecutorContext, InvalidValue
from sked_core.testing.builders import a_definition, a_task
from sked_docker import flags
from sked_docker.creation import CONTAINER, DIGEST, HOST, STORE, TASK, creation
from sked_docker.spec import host_bindings, parse, validate

MAX_BYTES = 2048
_CONTEXT = ExecutorContext(host="h1", store_uid="uid", state_dir=Path("/nonexistent"))
_OWN = {STORE: "uid", HOST: "h1", TASK: "default-web-1-0", CONTAINER: "web"}
_VALUES = ("", "=", "=true", " true", "=host", " host", "=/:/h", " /:/h", "=type=bind,src=/,dst=/h", "=a=b", " 'a b'")


def seeds() -> Iterator[bytes]:
    """Each option that is known, refused or an alias, with values that fit and that don't; and some whole lists."""
    names = sorted({flag.name for flag in flags.FLAGS} | flags.REFUSED.keys() | flags.ALIASES.keys())
    for value in _VALUES[:4]:
        yield "\n".join(f"--{name}{value}" for name in names).encode()[:MAX_BYTES]
    yield b"--privileged\n-v=/:/host\n--net=host\n--pid host\n-eA=1\n--cap-add=ALL\n--label sked.task=x\n--name x"
    yield b'--env "A=1 2"\n--tmpfs /t\n--mount=type=volume,src=v,dst=/v\n-p 80:80\n--memory=1g\n--ulimit nofile=1:2'
    yield b'{"image": "busybox", "cmd": ["a"], "env": {"A": 1}, "volumes": ["v:/v:ro"], "ports": ["80:80/udp"]}'


def mutate(data: bytes, seed: int) -> bytes:
    """A line for another, with the name or the value of an option exchanged."""
    rng = random.Random(seed)
    lines = data.decode("utf-8", "replace").split("\n")
    flag = rng.choice(flags.FLAGS)
    spelt = f"-{flag.short}" if flag.short and rng.random() < 0.3 else f"--{flag.name}"
    lines[rng.randrange(len(lines))] = spelt + rng.choice(_VALUES)
    return "\n".join(lines[-60:]).encode()


def judge(data: bytes) -> None:
    """Raises AssertionError where an item is neither a setting nor a mistake, where a body could not be sent, or where
    a flag touches what is Sked's own; anything but InvalidValue escapes."""
    text = data.decode("utf-8", "replace")
    items = text.split("\n")
    seen = set()
    for found in flags.read(items):
        seen.add(found.index)
        if isinstance(found, flags.Mistake):
            assert len(found.message) < 600
        else:
            json.dumps(found.value)
            assert found.flag.name not in flags.REFUSED
    assert seen <= set(range(len(items)))
    _whole({"image": "busybox", "flags": items})
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError):
        return
    _whole(spec)


def _whole(spec: Any) -> None:
    for problem in validate(spec):
        assert problem.message and len(str(problem)) < 4000
    try:
        parsed = parse(spec)
    except InvalidValue:
        assert not isinstance(spec, dict) or host_bindings(spec, 80) == frozenset()
        return
    assert all(1 <= one.port <= 65535 for one in host_bindings(spec, 80))
    container = Container(name="web", type="docker", executor=spec)
    task = a_task(definition=a_definition(containers=[container]))
    call = creation(_CONTEXT, task, container, spec=parsed, env={"SKED_TASK_ID": task.id})
    json.dumps(call.body)
    labels = call.body["Labels"]
    assert {name: labels[name] for name in _OWN} == _OWN and labels[DIGEST] == call.digest
    assert call.name.startswith("default-web-1-0.web.")
    assert "SKED_TASK_ID=default-web-1-0" in call.body["Env"]
    assert not call.image.startswith("-")
