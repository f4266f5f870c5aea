"""The file of hooks: ``$SKED_NOTIFY``, else ``/etc/sked/notify.toml``."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from sked_core.plugin import (
    EVENT_NAMES,
    Event,
    InvalidManifest,
    InvalidValue,
    Problem,
    beyond_this_machine,
    check_spec,
    to_seconds,
)

SYSTEM_FILE = Path("/etc/sked/notify.toml")
VARIABLE = "SKED_NOTIFY"
MAX_BYTES = 256 * 1024
MAX_SECRET_BYTES = 64 * 1024
MAX_HOOKS = 20
NAMES = ("what", "subject", "cluster", "service", "host", "why", "from", "to", "who", "at", "count")
"""What a text may name in braces."""
DEFAULT_TEXT = "{what} {subject} {why}"
_NAMED = re.compile(r"\{([^{}]*)\}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A text that is not in the file: what a file or a variable holds, behind ``prefix``."""

    file: str = ""
    env: str = ""
    prefix: str = ""

    def read(self) -> str:
        """Read anew each time, so that a secret may be changed. Raises InvalidValue, without the text."""
        if self.env:
            if self.env not in os.environ:
                raise InvalidValue(f"the variable {self.env} is not set")
            return self.prefix + os.environ[self.env]
        try:
            with Path(self.file).open("rb") as opened:
                content = opened.read(MAX_SECRET_BYTES + 1)
            text = content.decode().strip()
        except OSError as error:
            raise InvalidValue(f"{self.file} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidValue(f"{self.file} is no text") from None
        if len(content) > MAX_SECRET_BYTES or not text:
            raise InvalidValue(f"{self.file} is empty or too large")
        return self.prefix + text


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook. ``events``, ``clusters``, ``services``, ``hosts``, ``subjects``: patterns with ``*``; of each, one
    has to fit. ``group``: for so long events are gathered into one message. ``why``: whether reasons are sent."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    url: str | Held
    events: Annotated[list[str], msgspec.Meta(min_length=1)]
    clusters: list[str] = msgspec.field(default_factory=lambda: ["*"])
    services: list[str] = msgspec.field(default_factory=lambda: ["*"])
    hosts: list[str] = msgspec.field(default_factory=lambda: ["*"])
    subjects: list[str] = msgspec.field(default_factory=lambda: ["*"])
    format: Literal["json", "slack", "text"] = "json"
    text: str = DEFAULT_TEXT
    headers: dict[str, str | Held] = {}
    group: str = "30s"
    timeout: str = "10s"
    why: bool = True
    ca_file: str = ""
    plain_http: bool = False

    def wants(self, event: Event) -> bool:
        """Whether the event is one that it is told."""
        pairs = (
            (self.events, event.what),
            (self.clusters, cluster_of(event)),
            (self.services, event.service),
            (self.hosts, event.host),
            (self.subjects, event.subject),
        )
        return all(any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns) for patterns, text in pairs)

    @property
    def place(self) -> str:
        """The URL as far as it may be shown: its path is often all that a stranger needs."""
        if isinstance(self.url, Held):
            return f"(what {self.url.file or self.url.env} holds)"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/…"

    def address(self) -> str:
        """The whole URL. Raises InvalidValue."""
        return checked(self.url if isinstance(self.url, str) else self.url.read(), plain_http=self.plain_http)

    def all_headers(self) -> dict[str, str]:
        """With what is held elsewhere. Raises InvalidValue."""
        found = {name: value if isinstance(value, str) else value.read() for name, value in self.headers.items()}
        for name, value in found.items():
            if not value.isprintable() or not value.isascii():
                raise InvalidValue(f"the header {name} has a value that no header can have")
        return found


def cluster_of(event: Event) -> str:
    """The cluster that the event's subject is, or that its task is one of; empty for what is of no one cluster, such as
    services, roll-outs and hosts."""
    kind, _, name = event.subject.partition("/")
    if kind == "cluster":
        return name
    if kind != "task" or not event.service:
        return ""
    # Names may contain hyphens; with the service known, and two numbers at the end, only the cluster is left.
    found = re.fullmatch(rf"(.+)-{re.escape(event.service)}-[0-9]+-[0-9]+", name)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Config:
    """``name``: what messages call this Sked; ``file``: None where there is no file."""

    name: str = ""
    hooks: tuple[Hook, ...] = ()
    file: Path | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    hook: list[dict[str, Any]] = []


def load(environment: Mapping[str, str] | None = None) -> Config:
    """What the file says; nothing where there is none and none was asked for. Raises InvalidManifest."""
    chosen = (os.environ if environment is None else environment).get(VARIABLE)
    path = Path(chosen) if chosen else SYSTEM_FILE
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if chosen:
            raise InvalidManifest([Problem("", "there is no such file", str(path))]) from None
        return Config()
    except OSError as error:
        raise InvalidManifest([Problem("", f"can't be read: {error.strerror}", str(path))]) from None
    return parse(content, path)


def parse(content: bytes, path: Path) -> Config:
    """The content of a file. Raises InvalidManifest with all that is wrong."""
    if len(content) > MAX_BYTES:
        raise InvalidManifest([Problem("", f"larger than {MAX_BYTES} bytes", str(path))])
    try:
        data = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidManifest([Problem("", f"no TOML: {str(error)[:200]}", str(path))]) from None
    problems = check_spec(data, _File)
    hooks = data.get("hook")
    for index, said in enumerate(hooks if isinstance(hooks, list) else ()):
        problems += check_spec(said, Hook, f"hook[{index}]")
    found: list[Hook] = []
    if not problems:
        found = [msgspec.convert(said, Hook) for said in data.get("hook", ())]
        problems = [one for index, hook in enumerate(found) for one in _mistakes(hook, f"hook[{index}]")]
        names = [hook.name for hook in found]
        problems += [
            Problem("hook", f'two are called "{name}"') for name in sorted(set(names)) if names.count(name) > 1
        ]
        if len(found) > MAX_HOOKS:
            problems.append(Problem("hook", f"more than {MAX_HOOKS}"))
    if problems:
        placed = [Problem(one.path, one.message, str(path)) for one in problems]
        raise InvalidManifest(placed)
    return Config(data.get("name", ""), tuple(found), path)


def checked(url: str, *, plain_http: bool) -> str:
    """The URL, if messages may go there. Raises InvalidValue, without the URL."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidValue("no URL") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise InvalidValue("expected https://HOST/PATH")
    if parts.username is not None:
        raise InvalidValue("a password in a URL is seen by many: use headers")
    if parts.scheme == "http" and not plain_http and beyond_this_machine(host):
        raise InvalidValue("http shows every message on the way", hint="use https, or say plain_http = true")
    return url


def _mistakes(hook: Hook, path: str) -> list[Problem]:
    problems = []
    for name, least, most in (("group", 0.0, 86_400.0), ("timeout", 0.1, 60.0)):
        try:
            found = to_seconds(getattr(hook, name))
            if not least <= found <= most:
                problems.append(Problem(f"{path}.{name}", f"expected {least:g}s to {most:g}s"))
        except InvalidValue as error:
            problems.append(Problem(f"{path}.{name}", str(error)))
    if isinstance(hook.url, str):
        try:
            checked(hook.url, plain_http=hook.plain_http)
        except InvalidValue as error:
            problems.append(Problem(f"{path}.url", "; ".join(filter(None, (str(error), error.hint)))))
    held = {f"headers.{name}": value for name, value in hook.headers.items()} | {"url": hook.url}
    for name, value in held.items():
        if isinstance(value, Held) and bool(value.file) == bool(value.env):
            problems.append(Problem(f"{path}.{name}", "expected either file or env"))
    if not all(map(_HEADER.fullmatch, hook.headers)):
        problems.append(Problem(f"{path}.headers", "expected names of headers"))
    problems += [Problem(f"{path}.events", _unknown(one)) for one in hook.events if not _events(one)]
    unknown = [one for one in _NAMED.findall(hook.text) if one not in NAMES]
    there = f"there are {', '.join(NAMES)}"
    return problems + [Problem(f"{path}.text", f"{{{one[:40]}}} is nothing; {there}") for one in unknown]


def _events(pattern: str) -> list[str]:
    return fnmatch.filter(EVENT_NAMES, pattern)


def _unknown(pattern: str) -> str:
    """What is said of a pattern that fits no event."""
    known = [*EVENT_NAMES, *dict.fromkeys(f"{name.partition('.')[0]}.*" for name in EVENT_NAMES)]
    near = difflib.get_close_matches(pattern, known, 1)
    there = f'did you mean "{near[0]}"?' if near else "docs/events.md has all that there are"
    return f'no event is called "{pattern[:80]}", {there}'


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with what stands in braces filled in."""
    return _NAMED.sub(lambda found: values.get(found[1], found[0]), text)
