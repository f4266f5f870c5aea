"""YAML (and with it JSON) to plain data, with the place of every key and value, and nothing that YAML can do to you.

Read are the scalars of the YAML 1.2 core schema: ``no``, ``on``, ``22:22`` and dates are text, ``010`` is ten.
Refused are tags, merge keys (YAML 1.2 has none: alias a whole value instead), duplicate keys, keys that are not
text, aliases that hold themselves or expand too far, deep nesting, and numbers or text that JSON can't carry.

The document is built from PyYAML's event stream, not by its loader: events need no recursion, carry positions, and
never construct an object.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sked_core.errors import Problem
from sked_core.model.spec import join, plain, show

if TYPE_CHECKING:  # else where it is used: plugins import this module, most of them for other things
    import yaml

MAX_BYTES = 1024 * 1024
"""Largest file."""
MAX_DEPTH = 64
"""Deepest nesting, aliases expanded. Manifests need eight and what an executor nests."""
MAX_EXPANSION = 1024 * 1024
"""Most that all aliases of a file may add, in characters; a mapping, list or scalar counts 16 more."""

Position = tuple[int, int]
"""Line and column, both from 1."""

_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_SLASHES = re.compile(r"(^|[\s,{\[])//", re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its mapping as plain data, and where each path (``services[0].desired``) stands in it."""

    file: str
    data: dict[str, Any]
    keys: dict[str, Position]
    values: dict[str, Position]

    def place(self, path: str, *, key: bool = False) -> Position:
        """Where the value at ``path`` stands (its key, with ``key``); for what is missing, what should hold it."""
        while path:
            position = self.keys.get(path) if key else None
            position = position or self.values.get(path)
            if position:
                return position
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.values.get("", (1, 1))


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read: its documents (as far as they could be), and all that is wrong with the YAML itself."""

    file: str
    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Node:
    kind: str  # scalar, list or mapping
    position: Position
    value: str = ""
    is_plain: bool = False
    children: list[_Node] = field(default_factory=list)  # of a mapping: key, value, key, value, …
    tag: str = ""
    anchor: str | None = None
    size: int = 16
    height: int = 1
    of_alias: _Node | None = None

    def add(self, child: _Node) -> None:
        self.children.append(child)
        self.size += child.size
        self.height = max(self.height, child.height + 1)


class _Stop(Exception):
    """The rest of the file can't be read."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


def parse(
    data: bytes, file: str, *, expected: str = "with clusters, services or task_definitions", merge: bool = False
) -> Source:
    """The documents in ``data``, the content of a file or a pipe, which is called ``file`` in problems. ``expected``:
    what mapping each has to be. ``merge``: take merge keys (``<<``), for formats that are full of them.

    Never raises: what can't be read is a problem with line and column. Empty documents are left out.
    """
    import yaml

    file = plain(file)
    documents: list[Document] = []
    problems: dict[Problem, None] = {}  # ordered, and each once however often an alias repeats it

    def report(message: str, position: Position, path: str = "") -> None:
        problems[Problem(path, message, file, *position)] = None

    try:
        for root in _trees(_text(data)):
            if root.kind == "scalar" and root.is_plain and root.value in _NULL:
                continue
            if root.kind != "mapping":
                report(f"the document must be a mapping {expected}", root.position)
                continue
            document = Document(file, {}, {}, {})
            built = _Builder(document, report, merge).build(root, "")
            document.data.update(built)
            documents.append(document)
    except _Stop as stop:
        report(str(stop), stop.position)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        report(_syntax(error, data), (mark.line + 1, mark.column + 1) if mark else (1, 1))
    except yaml.YAMLError as error:
        report(f"YAML syntax: {plain(str(error))[:200]}", (1, 1))
    return Source(file, tuple(documents), tuple(problems))


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Stop(f"the file is larger than {MAX_BYTES} bytes", (1, 1))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise _Stop(
            f"not UTF-8 text (byte 0x{data[error.start]:02x}): save the file as UTF-8", _position(before)
        ) from None
    control = _CONTROL.search(text)
    if control:
        raise _Stop(f"control character U+{ord(control[0]):04X} not allowed", _position(text[: control.start()]))
    return text


def _position(before: str) -> Position:
    lines = re.split(r"\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


def _syntax(error: yaml.MarkedYAMLError, data: bytes) -> str:
    parts = [text for text in (error.problem, error.context) if text]
    message = f"YAML syntax: {plain(' '.join(parts))[:200]}"
    text = data.decode("utf-8-sig", "replace")
    mark = error.problem_mark
    if (
        mark
        and text.splitlines()[mark.line : mark.line + 1]
        and text.splitlines()[mark.line][mark.column :][:1] == "\t"
    ):
        return message + "; indent with spaces, not tabs"
    if _SLASHES.search(text):
        return message + "; comments begin with #, not with //"
    return message


def _trees(text: str) -> Iterator[_Node]:
    """The root node of each document. Raises _Stop, or a YAMLError for bad syntax."""
    import yaml

    # libyaml is twenty times as fast, but refuses the pairs of escapes by which JSON writes an emoji.
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = yaml.SafeLoader if _SURROGATE_ESCAPE.search(text) else fast
    anchors: dict[str, _Node] = {}
    open_nodes: list[_Node] = []
    expansion = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.DocumentStartEvent):
            anchors = {}
            continue
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            node = open_nodes.pop()
        elif isinstance(event, yaml.NodeEvent):
            mark = event.start_mark
            position = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            if isinstance(event, yaml.AliasEvent):
                node = _target(event.anchor or "", anchors, open_nodes, position)
                expansion += node.size
                if expansion > MAX_EXPANSION:
                    raise _Stop("aliases expand too far", position)
            else:
                node = _node(event, position)
                if event.anchor is not None:
                    anchors[event.anchor] = node
                if node.kind != "scalar":
                    open_nodes.append(node)
                    if len(open_nodes) > MAX_DEPTH:
                        raise _Stop(f"nested deeper than {MAX_DEPTH} levels", position)
                    continue
        else:
            continue
        if len(open_nodes) + node.height > MAX_DEPTH + 1:
            raise _Stop(f"nested deeper than {MAX_DEPTH} levels", node.position)
        if open_nodes:
            open_nodes[-1].add(node)
        else:
            yield node


def _target(anchor: str, anchors: dict[str, _Node], open_nodes: list[_Node], position: Position) -> _Node:
    node = anchors.get(anchor)
    if node is None:
        raise _Stop(f"alias *{plain(anchor)[:60]} has no anchor before it", position)
    if any(node is opened for opened in open_nodes):
        raise _Stop(f"alias refers to itself: *{plain(anchor)[:60]} stands inside &{plain(anchor)[:60]}", position)
    return node


def _node(event: yaml.NodeEvent, position: Position) -> _Node:
    import yaml

    tag = getattr(event, "tag", None) or ""
    if isinstance(event, yaml.ScalarEvent):
        is_plain = event.style in (None, "")
        return _Node("scalar", position, event.value, is_plain, tag=tag, size=16 + len(event.value))
    return _Node("mapping" if isinstance(event, yaml.MappingStartEvent) else "list", position, tag=tag)


class _Builder:
    """Turns nodes into plain data. Depth is bounded by MAX_DEPTH, size by MAX_BYTES and MAX_EXPANSION."""

    def __init__(self, document: Document, report: Any, merge: bool) -> None:
        self._document = document
        self._report = report
        self._merge = merge

    def build(self, node: _Node, path: str) -> Any:
        """The data of ``node``; its places are noted below ``path``."""
        self._document.values[path] = node.position
        if node.tag:
            advice = ' (text that looks like a number needs quotes: "2")' if node.kind == "scalar" else ""
            self._report(f"tag not allowed: {_short_tag(node.tag)}{advice}", node.position, path)
        if node.kind == "scalar":
            return self._scalar(node, path)
        if node.kind == "list":
            return [self.build(child, f"{path}[{index}]") for index, child in enumerate(node.children)]
        return self._mapping(node, path)

    def _mapping(self, node: _Node, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value, own in self._entries(node, path):
            name = _resolve(key) if key.kind == "scalar" else key
            if not isinstance(name, str):
                shown = f"a {key.kind}" if key.kind != "scalar" else plain(key.value[:60]) or "nothing"
                advice = "" if key.kind != "scalar" else f': quote it, "{shown}"'
                self._report(f"a key must be text, got {shown}{advice}", key.position, path)
                continue
            name = self._check_text(name, key, join(path, name))
            inner = join(path, name)
            if name in result and not own:
                continue
            if name in result:
                first = self._document.keys[inner]
                self._report(f"duplicate key, first at line {first[0]}, column {first[1]}", key.position, inner)
                continue
            self._document.keys[inner] = key.position
            result[name] = self.build(value, inner)
        return result

    def _entries(self, node: _Node, path: str, own: bool = True) -> Iterator[tuple[_Node, _Node, bool]]:
        """Keys with their values: the mapping's own, then what it merges, of which the first of a name counts."""
        merged: list[_Node] = []
        for key, value in zip(node.children[::2], node.children[1::2], strict=True):
            if not (key.is_plain and key.value == "<<"):
                yield key, value, own
            elif self._merge:
                merged += value.children if value.kind == "list" else [value]
            else:
                self._report("merge keys (<<) are not supported: alias a whole value instead", key.position, path)
        for source in merged:
            if source.kind == "mapping":
                yield from self._entries(source, path, own=False)
            else:
                self._report(f"what is merged must be a mapping, got a {source.kind}", source.position, path)

    def _scalar(self, node: _Node, path: str) -> Any:
        value = _resolve(node)
        if isinstance(value, str):
            return self._check_text(value, node, path)
        if isinstance(value, float) and not math.isfinite(value):
            self._report(f"not a number that JSON can hold: {plain(node.value[:60])}", node.position, path)
            return 0
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            self._report(f"number too large: {show(value)}", node.position, path)
            return 0
        return value

    def _check_text(self, value: str, node: _Node, path: str) -> str:
        if _SURROGATE.search(value):
            try:
                value = value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._report("half of a surrogate pair is not text", node.position, path)
                return ""
        if "\0" in value:
            self._report("text must not contain NUL", node.position, path)
            return value.replace("\0", "")
        return value


def _resolve(node: _Node) -> str | int | float | bool | None:
    """The value of a scalar by the YAML 1.2 core schema."""
    text = node.value
    if not node.is_plain:
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.match(text):
        return int(text) if len(text) <= 400 else 10**400
    if _BASED.match(text):
        return int(text[2:], 8 if text[1] == "o" else 16) if len(text) <= 400 else 10**400
    if _FLOAT.match(text):
        return float(text)
    return math.inf if _NOT_FINITE.match(text) else text


def _short_tag(tag: str) -> str:
    return plain(tag.replace("tag:yaml.org,2002:", "!!"))[:80]
