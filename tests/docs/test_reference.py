"""Pages to look things up in say what the code says: events, errors, the fields of what is stored."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sked_core import errors
from sked_core.client import outcomes
from sked_core.model import types
from sked_core.serving import problems

ROOT = Path(__file__).resolve().parents[2]
EVENT = re.compile(r"(task|rollout|service|cluster|task_definition|host|agent|shadow|move|events)\.[a-z_]+")
MANIFEST_KINDS = ("cluster", "service", "task_definition")
COMPOSED_AS = re.compile(r"(task|rollout|service|host|agent|shadow|move)\.{.*}|{[^}]*}\.(applied|deleted)")
NOT_EVENTS = {"agent.sock", "host.name", "host.{one}", "host.{name}"}  # a file, attributes of hosts
COMPOSED = {
    "{change.kind}.applied": {f"{kind}.applied" for kind in MANIFEST_KINDS},
    "{kind}.deleted": {f"{kind}.deleted" for kind in MANIFEST_KINDS},
    "host.{(mark.state if mark else 'ready')}": {"host.cordoned", "host.draining", "host.ready"},
    "rollout.{after.result}": {"rollout.succeeded", "rollout.rolled_back", "rollout.superseded", "rollout.withdrawn"},
    "rollout.{done}": {"rollout.paused", "rollout.resumed", "rollout.promoted"},
    "move.{step.what}": {"move.started", "move.done", "move.cancelled"},
}
"""What the code puts together, and what can come of it."""


def _told() -> Iterator[tuple[str, bool]]:
    """Each name of an event in the code, and each f-string that is given as one (True), as written."""
    for path in (ROOT / "sked_core").rglob("*.py"):
        if "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if id(node) not in parts and EVENT.fullmatch(text):
                    yield text, False
                case ast.JoinedStr() if COMPOSED_AS.fullmatch(text := ast.unparse(node)[2:-1]):
                    yield text, True


def _documented() -> set[str]:
    text = (ROOT / "docs" / "events.md").read_text()
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z_.]+)`", cell)}


def test_every_event_that_the_code_tells_is_on_the_page_and_no_other() -> None:
    told = set(_told())
    composed = {text for text, put in told if put} - NOT_EVENTS
    assert composed <= set(COMPOSED)
    names = {text for text, put in told if not put} - NOT_EVENTS
    assert names | {name for text in composed for name in COMPOSED[text]} == _documented()


def _rows(title: str) -> list[list[str]]:
    body = (ROOT / "docs" / "errors.md").read_text().partition(title)[2].partition("\n## ")[0]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("| ").split(" | ")]
        for line in body.splitlines()
        if line[:1] == "|"
    ]
    return rows[2:]


def _classes() -> dict[str, errors.SkedError]:
    found = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.SkedError) and kind is not errors.SkedError:
            found[name] = kind([]) if kind is errors.InvalidManifest else kind("it failed")
    return found


def test_every_class_of_errors_is_on_the_page_with_its_codes() -> None:
    documented = {row[0]: (row[2], int(row[3]), int(row[4])) for row in _rows("# Errors")}
    coded = {
        name: (
            problems.describe(error)["type"].removeprefix("urn:sked:"),
            outcomes.code_of(error),
            problems.status_of(error),
        )
        for name, error in _classes().items()
    }
    assert documented == coded


def test_every_exit_code_is_on_the_page() -> None:
    codes = {value for name, value in vars(outcomes).items() if name.isupper() and isinstance(value, int)}
    assert codes | {0} == {int(row[0]) for row in _rows("## Exit codes")}


def test_every_status_of_the_api_is_on_the_page() -> None:
    assert {(int(row[0]), row[1], row[2]) for row in _rows("## Status codes of the API")} == {
        (status, kind, title) for status, (kind, title) in problems._TITLES.items()
    }


def test_the_guide_gives_the_rights_that_tests_run_with() -> None:
    page = (ROOT / "docs" / "five-hosts.md").read_text()
    for name in ("agent", "scheduler"):
        (shown,) = re.findall(rf"`web-1:{name}\.hcl`:\n\n```hcl\n(.*?)```", page, re.DOTALL)
        assert shown == (ROOT / "packaging" / "consul" / f"{name}.hcl").read_text()


FIELDS = (
    types.Cluster, types.Service, types.UpdatePolicy, types.Placement, types.AtMost, types.Neighbour, types.Preference,
    types.Spread, types.TaskDefinition, types.Container, types.Check,
)  # fmt: skip
IN_WORDS = {
    ("Service", "min"), ("Service", "max"), ("Service", "auto_bounds"), ("Service", "update"), ("Service", "placement"),
    ("TaskDefinition", "shutdown_delay"),
}  # fmt: skip
"""Fields whose default is told in words."""


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_manifest_is_on_the_page_with_its_default(kind) -> None:
    page = (ROOT / "docs" / "manifests.md").read_text()
    body = page.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
    shown = {}
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ", 2)]
        if line.startswith("| ") and cells[0] not in ("field", "---"):
            for name in cells[0].replace("*", "").split(", "):
                shown[name] = "" if "**" in cells[0] else cells[1].strip("`")
    coded = {}
    for field in msgspec.structs.fields(kind):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        text = "" if default is msgspec.NODEFAULT else "none" if default is msgspec.UNSET else json.dumps(default)
        coded[field.encode_name] = shown.get(field.encode_name) if (kind.__name__, field.name) in IN_WORDS else text
    assert shown == coded
