"""Field-by-field checking of a mapping against a struct, so that every mistake is reported, not just the first.

Used for manifests and, by executors, for a container's ``executor`` object.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from sked_core.errors import Problem


def check_spec(value: object, kind: type[msgspec.Struct], path: str = "") -> list[Problem]:
    """Every structural mistake in ``value`` as an object of type ``kind``; an empty list means msgspec takes it.

    Paths are those of the fields (``checks[0].interval``). Unknown fields get the nearest known one as advice.
    """
    if not isinstance(value, Mapping):
        return [Problem(path, f"expected a mapping, got {_show(value)}")]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    problems = [
        Problem(_join(path, str(name)), unknown_field(str(name), fields)) for name in value if name not in fields
    ]
    for name, field in fields.items():
        if name in value:
            problems += _check_value(value[name], field.type, _join(path, name))
        elif field.required:
            problems.append(Problem(_join(path, name), "required, but missing"))
    return problems


def unknown_field(name: str, known: typing.Iterable[str]) -> str:
    """The message for a field that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'unknown field, did you mean "{near[0]}"?' if near else f"unknown field; known are {', '.join(known)}"


def _check_value(value: object, kind: Any, path: str) -> list[Problem]:
    struct, listed = _struct_in(kind)
    if struct is not None and value is not None:
        if not listed:
            return check_spec(value, struct, path)
        if isinstance(value, list):
            return [p for index, item in enumerate(value) for p in check_spec(item, struct, f"{path}[{index}]")]
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        text, _, inner = str(error).partition(" - at `$")
        return [Problem(path + inner.rstrip("`"), _explain(text, value, kind))]
    return []


def _struct_in(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct that ``kind`` (``S``, ``list[S]``, either ``| None``) holds, and whether in a list."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    for option in options:
        listed = typing.get_origin(option) is list
        inner = typing.get_args(option)[0] if listed else option
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner, listed
    return None, False


def _explain(text: str, value: object, kind: Any) -> str:
    """msgspec's message in the words of people who write YAML, with what they wrote."""
    if "matching regex" in text:
        return f"expected 1 to 63 of a-z 0-9 -, first and last not a hyphen, got {_show(value)}"
    words = text.replace("`", "").replace("Expected", "expected")
    for theirs, ours in (
        ("int", "a whole number"),
        ("str", "text"),
        ("bool", "true or false"),
        ("array", "a list"),
        ("object", "a mapping"),
    ):
        words = words.replace(f"expected {theirs}", f"expected {ours}", 1)
    return f"{words.partition(', got')[0]}, got {_show(value)}"


def _show(value: object) -> str:
    match value:
        case str():
            return f'"{value[:60]}"'
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)[:60]
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
        case _:
            return type(value).__name__


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
