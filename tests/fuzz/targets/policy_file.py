"""Policies of hosts: any bytes through the reader of a policy file, with the sections of the real executors."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator

import msgspec

from fuzz.mutating import mutated
from fuzz.targets import ROOT
from sked_core.as_user import chosen
from sked_core.logic.gates import Premises, denials
from sked_core.model.policy import Policy
from sked_core.model.yaml_source import parse as read_yaml
from sked_core.runtime.agent.policy_file import parse
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.builders import a_container, a_definition, a_task

MAX_BYTES = 4096
_TYPES = ("docker", "bash")


@functools.cache
def _plugins() -> Plugins:
    return Plugins.load()


def seeds() -> Iterator[bytes]:
    """The policy that is packaged, and each that the docs show."""
    yield (ROOT / "packaging" / "policy.yml").read_bytes()
    for page in ("policy.md", "secrets.md", "operations.md"):
        for block in re.findall(r"```ya?ml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
            yield block.encode()
    yield b"executors: [bash]\nbash: {users: [app], run_as: app}\nlimits: {memory: 512}\n"


def mutate(data: bytes, seed: int) -> bytes:
    """As JSON, which is YAML as well, from whatever the reader made of the input."""
    documents = read_yaml(data, "seed").documents
    return mutated(json.dumps(documents[0].data).encode(), seed) if seed % 2 and documents else b""


def judge(data: bytes) -> None:
    """Raises AssertionError where a problem has no place or could drive a terminal, where a policy with a problem
    allows anything, or where one that counts means something else when it is written anew; nothing else escapes."""
    policy, problems = parse(data, "policy.yml", _plugins())
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    for problem in problems:
        text = str(problem)
        assert 0 < problem.line <= lines and problem.column > 0, problem
        assert text.isprintable() and len(text) < 4000, text
    if problems:
        assert policy == Policy()
    for kind in _TYPES:
        if kind not in policy.executors:
            task = a_task(definition=a_definition(containers=[a_container(type=kind)]))
            assert denials(policy, task, Premises(chosen)), kind
    if not problems:
        own = {name: value for name, value in msgspec.to_builtins(policy).items() if name != "sections"}
        again, wrong = parse(
            msgspec.json.encode({**own, **msgspec.to_builtins(policy.sections)}), "policy.yml", _plugins()
        )
        assert not wrong and again == policy, wrong
