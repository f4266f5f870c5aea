"""The page on the executor, the one on policies and the struct say the same of the policy's section ``bash``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sked_bash.rights import BashPolicy
from sked_core.model import yaml_source

README = Path(__file__).parents[1] / "README.md"
PAGE = Path(__file__).parents[3] / "docs" / "policy.md"


def fields() -> dict[str, Any]:
    return msgspec.to_builtins(BashPolicy())


def test_the_table_has_every_setting_with_what_it_is_where_it_is_not_said() -> None:
    section = README.read_text().partition("| in `bash:` |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, re.MULTILINE))
    assert {name: parsed(text) for name, text in rows.items()} == fields()


def test_the_page_on_policies_shows_a_section_that_is_one() -> None:
    text = next(
        block for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if block[:5] == "bash:"
    )
    shown = yaml_source.parse(text.encode(), "policy.md", expected="").documents[0].data["bash"]
    assert msgspec.convert(shown, BashPolicy) == BashPolicy(run_as="sked-tasks")
    assert list(shown) == list(fields())


def parsed(text: str) -> Any:
    return yaml_source.parse(f"x: {text}".encode(), "README.md", expected="").documents[0].data["x"]


@pytest.mark.parametrize("wrong", [{"run_az": "x"}, {"cgroups": "perhaps"}, {"root": "yes"}, {"users": "all"}])
def test_what_is_no_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, BashPolicy)
