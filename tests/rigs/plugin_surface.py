"""What plugins may use of Sked, as lines of text: for docs/plugin-api.txt, and for judging what became of it.

A line is ``path: what it is``. Paths: ``Candidate`` a name, ``Candidate.host`` a field or method, ``scored(terms)`` an
argument, ``hook sked_event`` a hook. Arguments that can't be given by position are ``named``.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import pkgutil
import re
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sked_core import plugin, testing
from sked_core.interfaces import hookspecs

NOTHING = object()
RECORD = Path(__file__).resolve().parents[2] / "docs" / "plugin-api.txt"
HEAD = """\
# All that plugins may use of Sked, line by line. Written by scripts/plugin-api, which also says what may become of it.
# A line of an argument or field says its type and default; "named" is what can't be given by position.
"""
OURS = ("Clock", "Invocation", "Reading")
"""Protocols of which the core gives the objects: methods may be added. All others are for plugins to be."""
RULES = """\
  added (a name, a hook or its argument, an argument or a field with a default): raise the minor of API_VERSION
  a name that is to go: deprecate it for a release (_DEPRECATED in sked_core/plugin.py), then raise the major
  an argument, field or hook that is gone or changed: raise the major
  then record it: scripts/plugin-api"""


class Surface(NamedTuple):
    """``version``: of the API; ``released``: the version of the last Sked that was published, empty for none."""

    version: str
    released: str
    lines: dict[str, str]


def current(released: str = "") -> Surface:
    """What the code has now."""
    lines: dict[str, str] = {}
    for name in sorted({*plugin.__all__, *plugin._DEPRECATED} - {"API_VERSION"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            value = getattr(plugin, name)
        lines |= _described(name, value)
        if name in plugin._DEPRECATED:
            _, instead, gone = plugin._DEPRECATED[name]
            lines[name] += f" (deprecated: use {instead}; gone in {gone})"
    hooks = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "sked_spec")}
    for name, hook in sorted(hooks.items()):
        lines |= _called(f"hook {name}", hook, "hook")
    for module in _testing_modules():
        for name, value in sorted(vars(module).items()):
            own = getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
            public = own and (inspect.isclass(value) or module.__name__.endswith(("commands", "memory")))
            whole = module.__name__.endswith(("samples", "scratch", "clock", "commands", "memory"))
            if public and (name.endswith(("Contract", "Sample")) or whole):
                lines |= _described(f"{module.__name__.removeprefix('sked_core.')}.{name}", value)
    return Surface(plugin.API_VERSION, released, lines)


def recorded(text: str) -> Surface:
    """What is written down. Inverse of ``written``."""
    lines = dict(line.split(": ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return Surface(lines.pop("plugin API"), lines.pop("released").removeprefix("none"), lines)


def written(surface: Surface) -> str:
    lines = "".join(f"{path}: {what}\n" for path, what in surface.lines.items())
    return f"{HEAD}plugin API: {surface.version}\nreleased: {surface.released or 'none'}\n\n{lines}"


def differences(old: Surface, new: Surface) -> list[str]:
    """What became of it, a line each; those that break plugins begin with an exclamation mark, or two where nobody
    was warned."""
    told = []
    for path, was in old.lines.items():
        now = new.lines.get(path)
        if now is None:
            name = _name(path)
            if path == name or name in new.lines:
                warned = path != name or "(deprecated: " in was
                told.append(f"{'!' if warned else '!!'} gone: {path}: {was}")
        elif now != was:
            harmless = now.startswith((f"{was} = ", f"{was} (deprecated"))
            told.append(f"{' ' if harmless else '!'} changed: {path}: {was} -> {now}")
    for path, what in new.lines.items():
        if path not in old.lines:
            told.append(f"{' ' if _may_come(old, new, path) else '!'} new: {path}: {what}")
    for owner in {_owner(path) for path in old.lines} - {""}:
        before, after = _by_position(old, owner), _by_position(new, owner)
        if set(before) <= set(after) and after[: len(before)] != before:
            told.append(f"! other order: {owner}: {', '.join(after)}")
    return told


def complaints(old: Surface, new: Surface) -> list[str]:
    """Why ``new`` may not become the record; nothing before the first release, when everything may change."""
    if not old.released:
        return []
    told = differences(old, new)
    if unannounced := [line for line in told if line.startswith("!!")]:
        return unannounced
    broken = [line for line in told if line.startswith("!")]
    if broken and _major_minor(new.version)[0] <= _major_minor(old.released)[0]:
        return broken
    return told if _major_minor(new.version) <= _major_minor(old.released) else []


def _may_come(old: Surface, new: Surface, path: str) -> bool:
    owner = _owner(path)
    if owner not in old.lines or owner.startswith("hook "):
        return True  # something all new, or a hook's argument: who does not name it is not given it
    if new.lines[_name(path)] == "protocol" and _name(path) not in OURS:
        return False  # plugins that exist lack it, or don't take it
    takes = "(" in path or new.lines[owner].startswith(("dataclass", "struct"))
    return not takes or " = " in new.lines[path] or new.lines[path].startswith("method")


def _by_position(surface: Surface, owner: str) -> list[str]:
    """Fields or arguments of ``owner`` whose order counts."""
    if surface.lines.get(owner, "") in ("", "enum", "protocol", "class", "exception"):
        return []
    apart = ("named ", "method", "property", "class method", "static method")
    return [path for path, what in surface.lines.items() if _owner(path) == owner and not what.startswith(apart)]


def _owner(path: str) -> str:
    if path.endswith(")"):
        return path.rpartition("(")[0]
    return "" if path.startswith("testing.") and path.count(".") == 2 else path.rpartition(".")[0]


def _name(path: str) -> str:
    """The exported name or hook that ``path`` belongs to."""
    parts = path.partition("(")[0].split(".")
    return ".".join(parts[: 3 if parts[0] == "testing" else 1])


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def _testing_modules() -> Iterator[Any]:
    for found in sorted(pkgutil.iter_modules(testing.__path__, "sked_core.testing."), key=lambda one: one.name):
        if not found.ispkg:
            yield importlib.import_module(found.name)


def _described(path: str, value: Any) -> dict[str, str]:
    """A name with all that belongs to it."""
    if not inspect.isclass(value):
        return _called(path, value, "function") if inspect.isfunction(value) else {path: _simple(value)}
    if issubclass(value, enum.Enum):
        return {path: "enum"} | {f"{path}.{one.name}": repr(one.value) for one in value}
    ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("sked_")]
    said = {name: text for base in ours for name, text in inspect.get_annotations(base).items()}
    public = {name: text for name, text in said.items() if not name.startswith("_")}
    kind, fields = _fields(value, public)
    lines = {path: kind} | {f"{path}.{name}": text for name, text in fields.items()}
    contract = value.__module__.startswith("sked_core.testing.") and kind == "class" and path.endswith("Contract")
    made = {"__init__"} if kind in ("class", "exception") else set()
    for name in sorted({name for base in ours for name in vars(base)} - set(fields)):
        member = inspect.getattr_static(value, name)
        own = contract and inspect.isfunction(member)  # its tests and their means are not for authors
        if (not name.startswith("_") or name in made) and not own:
            lines |= _member(f"{path}.{name}", member)
    return lines


def _fields(value: type, said: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """What kind of class it is, and its fields; ``said``: its annotations."""
    if dataclasses.is_dataclass(value):
        found = dataclasses.fields(value)
        return "dataclass", {one.name: _field(one.type, _default(one), one.kw_only) for one in found}
    if issubclass(value, msgspec.Struct):
        named = {one.name for one in inspect.signature(value).parameters.values() if one.kind is one.KEYWORD_ONLY}
        found = msgspec.structs.fields(value)
        return "struct", {one.name: _field(said[one.name], _default(one), one.name in named) for one in found}
    kind = "exception" if issubclass(value, BaseException) else "class"
    if getattr(value, "_is_protocol", False):
        kind = "protocol"
    return kind, {name: _field(text, getattr(value, name, NOTHING), False) for name, text in said.items()}


def _default(one: Any) -> Any:
    """Of a field of a dataclass or a struct."""
    if one.default not in (dataclasses.MISSING, msgspec.NODEFAULT):
        return one.default
    return NOTHING if one.default_factory in (dataclasses.MISSING, msgspec.NODEFAULT) else one.default_factory


def _member(path: str, value: Any) -> dict[str, str]:
    match value:
        case property():
            return {path: f"property {_type(inspect.signature(value.fget).return_annotation)}"}  # type: ignore[arg-type]
        case classmethod():
            return _called(path, value.__func__, "class method", given=1)
        case staticmethod():
            return _called(path, value.__func__, "static method")
        case _ if inspect.isfunction(value):
            return _called(path, value, "method", given=1)
    return {path: "fixture" if "fixture" in type(value).__name__.lower() else "attribute"}


def _called(path: str, function: Callable[..., Any], kind: str, *, given: int = 0) -> dict[str, str]:
    """A function with its arguments, without the first ``given``."""
    signature = inspect.signature(function)
    returns = signature.return_annotation
    lines = {path: kind if returns in (inspect.Signature.empty, None, "None") else f"{kind} -> {_type(returns)}"}
    for one in list(signature.parameters.values())[given:]:
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        default = NOTHING if one.default is one.empty else one.default
        named = one.kind is one.KEYWORD_ONLY or bool(stars)
        lines[f"{path}({stars}{one.name})"] = _field(one.annotation, default, named)
    return lines


def _field(kind: Any, default: Any, named: bool) -> str:
    return f"{'named ' if named else ''}{_type(kind)}" + ("" if default is NOTHING else f" = {_shown(default)}")


def _shown(default: Any) -> str:
    """Objects and factories by their kind: what is in them is told where they are described."""
    if inspect.isfunction(default):
        return default.__name__.replace("<lambda>", "...")
    if inspect.isclass(default):
        return f"{default.__name__}()"
    simple = isinstance(default, (str, int, float, tuple, frozenset, type(None), type(msgspec.UNSET)))
    return repr(default) if simple else f"{type(default).__name__}()"


def _simple(value: Any) -> str:
    if isinstance(value, (str, int, float)):
        return f"{type(value).__name__} = {value!r}"
    kind = getattr(value, "__supertype__", None)
    if kind is not None:
        return f"new type of {_type(kind)}"
    return _type(value) if isinstance(value, types.UnionType) else type(value).__name__


def _type(kind: Any) -> str:
    if kind is inspect.Parameter.empty:
        return "anything"
    text = kind if isinstance(kind, str) else kind.__name__ if inspect.isclass(kind) else str(kind)
    return re.sub(r"\b(typing|collections\.abc|sked_core[\w.]*)\.", "", text)
