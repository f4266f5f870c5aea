"""What the package of a plugin says that it needs, and whether the core at hand is that."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import metadata

from sked_core import __version__
from sked_core.interfaces.hookspecs import API_VERSION


def mismatch(package: str, requires: Sequence[str], core: str = __version__) -> str:
    """What is to be said of a plugin that asks for another version of the core; empty if nothing is."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for line in requires:
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        counts = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if counts and canonicalize_name(asked.name) == "sked-core":
            wrong = sorted(str(one) for one in asked.specifier if not one.contains(core, prereleases=True))
            if wrong:
                return f"{package} asks for sked-core{','.join(wrong)}, installed is {core}"
    return ""


def requires(package: str) -> tuple[str, ...]:
    """What a package says that it needs; nothing where it can't be told."""
    return tuple(value for key, value in about(package) if key == "Requires-Dist")


def about(package: str) -> list[tuple[str, str]]:
    """The metadata of a package, field by field; nothing of what was put there without an installer, or is damaged."""
    try:
        return [(key, str(value)) for key, value in metadata(package).items()]  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a package without readable metadata still has a plugin to tell of
        return []


def advice(package: str, error: str) -> str:
    """What would help a plugin that fails to load with ``error``, where it is made for another core; or empty."""
    remedy = f"pip install -U sked-core {package}"
    if found := mismatch(package, requires(package)):
        return f"{found}: {remedy}"
    if "sked_core.plugin" in error and ("import name" in error or "no attribute" in error):
        return f"this Sked has plugin API {API_VERSION}, without that name: {remedy}"
    return ""
