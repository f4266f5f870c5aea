"""docs/policy.md names every key of the policy with its default, and what it shows can be used as it stands."""

from __future__ import annotations

import re

import msgspec
import pytest
import yaml

from rigs.pages import ROOT
from sked_core.model.policy import Policy
from sked_core.runtime.agent.policy_file import parse
from sked_core.runtime.plugins.registry import Plugins

PAGE = (ROOT / "docs" / "policy.md").read_text()
ROW = re.compile(r"^\| `([\w.]+)` \| `([^`]*)` \|", re.MULTILINE)
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_key_stands_there_with_its_default() -> None:
    said = msgspec.to_builtins(Policy())
    del said["sections"]
    keys = {"executors": said.pop("executors")}
    keys |= {f"{section}.{name}": value for section, gates in said.items() for name, value in gates.items()}
    assert {name: yaml.safe_load(default) for name, default in ROW.findall(PAGE)} == keys


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_file_that_is_shown_is_one(example: str) -> None:
    _, problems = parse(example.encode(), "policy.yml", Plugins.load())
    assert problems == []


def test_there_are_files_to_begin_with() -> None:
    assert len(EXAMPLES) >= 2
