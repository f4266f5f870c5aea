"""Field-by-field checking of a mapping against a struct, so that every mistake is reported, not just the first.

Used for manifests and, by executors, for a container's ``executor`` object.
"""

from __future__ import annotations

import difflib
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sked_core.errors import NotFound, Problem
from sked_core.model.types import HOST_PATTERN, NAME_PATTERN

_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#@\"']*:[^\s/?#\"']*@")
UNKNOWN_FIELD = "unknown field"
"""How the message of a problem begins whose place is the field's name, not its value."""

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def check_spec(value: object, kind: type[msgspec.Struct], path: str = "") -> list[Problem]:
    """Every structural mistake in ``value`` as an object of type ``kind``; an empty list means msgspec takes it.

    Paths are those of the fields (``checks[0].interval``). Unknown fields get the nearest known one as advice.
    Never raises, whatever ``value`` holds.
    """
    if not isinstance(value, Mapping):
        return [Problem(path, f"expected a mapping, got {show(value)}")]
    fields = _fields(kind)
    problems = [
        Problem(join(path, str(name)), unknown_field(str(name), fields)) for name in value if name not in fields
    ]
    for name, field in fields.items():
        if name in value:
            problems += _check_value(value[name], field.type, join(path, name))
        elif field.required:
            problems.append(Problem(join(path, name), "required, but missing"))
    return problems


def unknown_field(name: str, known: Iterable[str]) -> str:
    """The message for a field that does not exist, with the nearest that does."""
    known = list(known)
    return f"{UNKNOWN_FIELD}{did_you_mean(name, known) or '; known are ' + ', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``, did you mean "min"?`` if one of ``known`` is near to ``name``, else nothing."""
    near = nearest(name, known, cutoff=0.5)
    return f', did you mean "{near}"?' if near else ""


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The one of ``names`` that is most like ``name``; empty if none is."""
    return next(iter(difflib.get_close_matches(name[:80], list(names), n=1, cutoff=cutoff)), "")


def known(what: str, name: str, names: Iterable[str]) -> str:
    """``name`` if it is among ``names``. Raises NotFound, with the one that is like it."""
    there = sorted(names)
    if name in there:
        return name
    near = nearest(name, there)
    listing = "plugins" if what == "scheduler" else f"{what}s"
    lists = f"`sked {listing}` lists the {what}s"
    if " or " in what:
        lists = " and ".join(f"`sked {kind}s`" for kind in what.split(" or ")) + " list what there is"
    hint = f"did you mean {near}?" if near else lists
    raise NotFound(f"no {what} {name}", hint=hint)


def plain(text: str) -> str:
    """``text`` in one line that can't drive a terminal: all that is not printable is written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def plain_lines(text: str) -> str:
    """The same with its lines left apart."""
    return "\n".join(map(plain, text.splitlines()))


def one_line(text: str) -> str:
    """A reason whose lines are each a reason, where there is one line for it."""
    return "; ".join(text.splitlines())


def without_passwords(text: str) -> str:
    """``text`` with user and password of every URL in it left out: fit to be shown to whoever may look."""
    return _CREDENTIALS.sub("***@", text)


def escaped(text: str) -> str:
    """JSON in which no character is left that is not printable, line ends apart; it says the same as before."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(one if one == "\n" or one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def show(value: object) -> str:
    """What was found instead of what was expected, short enough for a message."""
    match value:
        case str():
            return f'"{plain(value[:60])}{"…" if len(value) > 60 else ""}"'
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 200:
            return "a huge number"
        case int() | float():
            return str(value)
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
        case _:
            return type(value).__name__


def join(path: str, name: str) -> str:
    """The path of field ``name`` below ``path``."""
    name = plain(name[:80])
    return f"{path}.{name}" if path else name


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _check_value(value: object, kind: Any, path: str) -> list[Problem]:
    options = _options(kind)
    for option in options:
        if isinstance(value, list) and typing.get_origin(option) is list:
            (inner,) = typing.get_args(option)
            return [p for index, item in enumerate(value) for p in _check_value(item, inner, f"{path}[{index}]")]
        if isinstance(value, Mapping) and typing.get_origin(option) is dict:
            inner = typing.get_args(option)[1]
            if inner is not Any and all(isinstance(name, str) for name in value):
                return [p for name, item in value.items() for p in _check_value(item, inner, join(path, name))]
        only = isinstance(value, Mapping) or (value is not None and set(options) <= {option, type(None)})
        if only and isinstance(option, type) and issubclass(option, msgspec.Struct):
            return check_spec(value, option, path)
    if isinstance(value, float) and value.is_integer() and not any(_bare(option) is float for option in options):
        # msgspec takes 2.0 for an int; who writes a fraction where a count is due has mistaken the field.
        return [Problem(path, f"expected {_describe(options)}, got {show(value)}")]
    if typing.get_origin(kind) is typing.Literal and value not in typing.get_args(kind):
        return [Problem(path, f"expected {' or '.join(map(show, typing.get_args(kind)))}, got {show(value)}")]
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        text, _, inner_path = str(error).partition(" - at `$")
        return [Problem(path + plain(inner_path.rstrip("`")), _explain(text, value))]
    except (ValueError, OverflowError, RecursionError, TypeError):
        return [Problem(path, f"expected {_describe(options)}, got {show(value)}")]
    return []


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _bare(kind: Any) -> Any:
    """``kind`` without its constraints: ``int`` of ``Annotated[int, …]``, ``list`` of ``list[str]``."""
    origin = typing.get_origin(kind)
    return _bare(typing.get_args(kind)[0]) if origin is typing.Annotated else origin or kind


def _describe(options: tuple[Any, ...]) -> str:
    names = {int: "int", float: "float", str: "str", bool: "bool", list: "array", dict: "object", type(None): "null"}
    return " or ".join(_WORDS[names[bare]] if (bare := _bare(o)) in names else str(bare) for o in options)


def _explain(text: str, value: object) -> str:
    """msgspec's message in the words of people who write YAML, with what they wrote."""
    if NAME_PATTERN in text or repr(NAME_PATTERN)[1:-1] in text:
        return f"expected 1 to 63 of a-z 0-9 -, first and last not a hyphen, got {show(value)}"
    if HOST_PATTERN in text or repr(HOST_PATTERN)[1:-1] in text:
        return f'expected 1 to 253 of A-Z a-z 0-9 . _ -, not "." or "..", got {show(value)}'
    expected = re.sub(r"`([^`]*)`", lambda found: _words(found[1]), text.partition(", got")[0])
    message = f"{expected.replace('Expected', 'expected')}, got {show(value)}"
    if text.startswith("Expected `str`") and isinstance(value, (bool, int, float)):
        message += f': quote it, "{show(value)}"'
    return message


def _words(theirs: str) -> str:
    options = theirs.split(" | ")
    return " or ".join(_WORDS.get(option, option) for option in options if option != "null" or len(options) == 1)
