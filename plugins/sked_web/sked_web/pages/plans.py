"""A manifest that is looked at before it is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sked_core.client.acting.planning import plan_json, planned
from sked_core.errors import InvalidManifest
from sked_core.model.yaml_source import Source, parse
from sked_web.pages.site import Ask

NAME = "manifest.yml"
WHY = "applied on the page"


def sources_of(text: str) -> tuple[Source, ...]:
    """What was pasted, as ``sked apply -f`` would take it from a file. Browsers end lines as DOS did."""
    return (parse(text.replace("\r\n", "\n").encode(), NAME),)


def blank(ask: Ask) -> Mapping[str, Any]:
    """The form."""
    return {"manifest": "", "problems": (), "plan": None}


def plan(ask: Ask) -> Mapping[str, Any]:
    """What applying the form's manifest would do now."""
    text = ask.arg("manifest").replace("\r\n", "\n")
    try:
        made = planned(ask.site.act(ask.visitor.name), sources_of(text), WHY)
    except InvalidManifest as error:
        return {"manifest": text, "problems": error.problems, "plan": None}
    found = plan_json(made, f"sked apply -f {NAME} --if-revision {made.number}")
    return {"manifest": text, "problems": (), "plan": found}
