"""Policies for tests, changed as an operator would change them."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from sked_core.model.policy import Policy


def with_line(policy: Policy, line: str, **kinds: type[Any]) -> Policy:
    """The policy with the line of a denial worked into it: lists grow, all else is replaced. ``kinds``: the types of
    executors' sections."""
    ((section, said),) = yaml.safe_load(line).items()
    kind = kinds.get(section) or type(getattr(policy, section))
    before = msgspec.to_builtins(policy.section(section, kind) if section in kinds else getattr(policy, section))
    grown = {
        key: list(dict.fromkeys(before[key] + value)) if isinstance(value, list) else value
        for key, value in said.items()
    }
    changed = msgspec.convert(before | grown, kind)
    if section in kinds:
        return msgspec.structs.replace(policy, sections={**policy.sections, section: changed})
    return msgspec.structs.replace(policy, **{section: changed})
