"""``sked schema``: what it refuses is wrong, and what is right it takes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from sked_core.client.looking.manifest_schema import manifest_schema
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.plugins.requirements import mismatch
from sked_core.runtime.sources import load_sources

ROOT = Path(__file__).resolve().parents[2]
GOOD = [*sorted((ROOT / "examples").glob("*.*ml")), *sorted((ROOT / "examples").glob("*.json")),
        *sorted((ROOT / "tests" / "corpus" / "good").iterdir())]  # fmt: skip
STRUCTURE = (
    "name-slash", "name-upper", "name-empty", "name-too-long", "name-number", "name-dotdot", "name-dash-first",
    "desired-text", "desired-bool", "desired-negative", "desired-float", "version-negative", "port-too-high",
    "memory-negative", "typo-field", "unknown-top-level", "missing-task-name", "unknown-executor-type",
    "bash-without-start", "bash-unknown-field", "docker-no-image", "docker-port-text", "many-mistakes", "secret-typo",
    "secret-unknown-field",
)  # fmt: skip
"""What is wrong with one field whatever the others say; the rest of the corpus only `sked validate` finds."""


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = manifest_schema(spec_checkers(Plugins.load()))
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.Draft202012Validator(schema)


def documents(file: Path) -> list[Any]:
    (source,) = load_sources([str(file)], io.BytesIO())
    assert not source.problems, "the corpus has these for YAML's own mistakes"
    return [document.data for document in source.documents]


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.name)
def test_every_good_manifest_and_example_is_taken(validator, file) -> None:
    for document in documents(file):
        assert [f"{one.instance_path}: {one.message}" for one in validator.iter_errors(document)] == []


@pytest.mark.parametrize("name", STRUCTURE)
def test_what_is_wrong_with_a_single_field_is_refused(validator, name) -> None:
    found = documents(ROOT / "tests" / "corpus" / "bad" / f"{name}.yml")
    assert not all(validator.is_valid(document) for document in found)


def test_the_command_prints_it_and_it_names_the_dialect(sked) -> None:
    ran = sked("schema")
    printed = json.loads(ran.out)
    assert ran.code == 0 and printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert printed == json.loads(json.dumps(manifest_schema(spec_checkers(Plugins.load()))))
    assert {"bash", "docker"} <= set(printed["$defs"]["Container"]["properties"]["type"]["enum"])


def test_an_executor_that_describes_nothing_may_take_anything(validator) -> None:
    schema = manifest_schema({"odd": object()})  # type: ignore[dict-item]
    container = {"name": "a", "type": "odd", "executor": {"what": ["ever"]}}
    definition = {"name": "a", "version": 1, "containers": [container]}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid({"task_definitions": [definition]})
    assert not jsonschema_rs.Draft202012Validator(schema).is_valid({"task_definitions": [definition | {"mni": 1}]})


def test_plugins_info_tells_of_one_plugin(sked) -> None:
    ran = sked("plugins", "info", "bash")
    assert ran.code == 0
    told = dict(line.split(":", 1) for line in ran.out.splitlines())
    assert told["package"].strip() == "sked-bash" and told["provides"].strip() == "executor bash"
    (item,) = json.loads(sked("plugins", "info", "docker", "-o", "json").out)["items"]
    assert item["provides"] == ["executor docker"] and item["problem"] == "" and item["place"].endswith(".py")
    assert sked("plugins", "info", "core").code == 0
    near = sked("plugins", "info", "doker")
    assert near.code == 4 and "did you mean docker?" in near.err
    assert sked("plugins", "-o", "json").out.startswith("{")


@pytest.mark.parametrize(
    ("needs", "wrong"),
    [
        (["sked-core>=0.1.0", "msgspec>=0.19"], ""),
        (["sked_core (>=0.2)"], "sked-core>=0.2, installed is 0.1.3"),
        (["sked-core[consul]>=0.1,<0.1.2"], "sked-core<0.1.2, installed is 0.1.3"),
        (["sked-core==9; extra == 'all'"], ""),
        (["sked-core"], ""),
    ],
)
def test_a_plugin_for_another_core_is_found_out(needs, wrong) -> None:
    found = mismatch("sked-x", needs, "0.1.3")
    assert found == "" if not wrong else wrong in found
