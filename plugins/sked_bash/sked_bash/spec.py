"""The ``executor`` object of a bash container: its fields, what may stand in them, and the environment it makes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sked_bash.source import ArtifactSpec, Source, problems_of, source_of
from sked_core.plugin import Problem, check_spec

MAX_WORD_BYTES = 128 * 1024 - 1
"""The longest single argument or environment entry that Linux takes (MAX_ARG_STRLEN, execve(2)), without its NUL."""

MARK = "SKED_MARK"
"""Environment variable by which the processes of a container are found, wherever they went."""

COMMAND_MARK = "command."
"""What precedes the mark of a task in that of a command which is run beside it."""

PLACE = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", *PLACE, "TMPDIR")
"""All that a task gets of the agent's own environment: nothing that may hold a secret. As another user: only PLACE."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,30}\$?\Z")
"""What adduser takes for the name of a user (NAME_REGEX of Debian's, and dots)."""


class BashSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What users write. ``download_dir`` is relative to the task's own folder, where ``start`` runs. ``user``: whom it
    runs as, of those whom the host's policy allows; ``""``: whom the policy names."""

    start: str
    stop: str | None = ""
    user: str | None = ""
    env: list[str] | dict[str, str | int] | None = None
    artifact: str | ArtifactSpec | None = ""
    download_dir: str | None = ""

    @property
    def source(self) -> Source | None:
        """What is to be fetched before the start, if anything."""
        return source_of(self.artifact, self.download_dir)


def parse(spec: Mapping[str, Any]) -> BashSpec:
    """The spec of a container whose ``problems`` are none. Raises msgspec.ValidationError for other ones."""
    return msgspec.convert(spec, BashSpec, strict=True)


def problems(spec: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with ``spec``; an empty list means that ``parse`` takes it."""
    found = check_spec(spec, BashSpec)
    wrong = {problem.path.partition("[")[0] for problem in found}
    fields = {name: spec.get(name) for name in BashSpec.__struct_fields__ if name not in wrong}
    for name in ("start", "stop"):
        found += _command_problems(name, fields.get(name), required=name == "start" and name in fields)
    if fields.get("user") and not _USER.match(str(fields["user"])):
        found.append(Problem("user", f'{str(fields["user"])[:40]!a} is not a name of a user, such as "www-data"'))
    if fields.get("env") is not None:
        found += _env_problems(fields["env"])
    if "artifact" in fields:
        found += problems_of(fields["artifact"], fields.get("download_dir"))
    return found


def env_of(spec: BashSpec) -> dict[str, str]:
    """The environment that the spec asks for."""
    if spec.env is None:
        return {}
    if isinstance(spec.env, list):
        return dict(_split(entry) for entry in spec.env)
    return {name: str(value) for name, value in spec.env.items()}


def env_names(spec: BashSpec) -> list[str]:
    """The variables that the spec sets."""
    if isinstance(spec.env, list):
        return [_split(entry)[0] for entry in spec.env]
    return list(spec.env or ())


def environment(
    own: Mapping[str, str], login: Mapping[str, str], provided: Mapping[str, str], spec: BashSpec, mark: str
) -> dict[str, str]:
    """The whole environment of a task: a few variables of the agent's ``own``, or of the ``login`` of the other user
    whom it runs as (else empty), those ``provided`` for the task, those of the spec, each overriding the ones before,
    and the mark, which nothing overrides."""
    inherited = {name: own[name] for name in (PLACE if login else INHERITED) if name in own}
    return {"PATH": DEFAULT_PATH, **inherited, **login, **provided, **env_of(spec), MARK: mark}


def _split(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _command_problems(name: str, command: object, *, required: bool) -> Iterator[Problem]:
    text = command if isinstance(command, str) else ""
    if required and not text.strip():
        yield Problem(name, 'expected a shell command, such as "exec ./server --port $PORT"')
    if "\0" in text:
        yield Problem(name, "a command can't hold a NUL character")
    if not _encodable(text):
        yield Problem(name, "a command can't hold half of a surrogate pair")
    elif len(os.fsencode(text)) > MAX_WORD_BYTES:
        yield Problem(name, f"longer than the {MAX_WORD_BYTES} bytes that Linux takes; put the script into an artifact")


def _env_problems(env: object) -> Iterator[Problem]:
    if isinstance(env, list):
        entries = [(f"env[{index}]", *_split(entry), "=" in entry) for index, entry in enumerate(env)]
    elif isinstance(env, Mapping):
        entries = [(f"env.{_printable(str(name))}", str(name), str(value), True) for name, value in env.items()]
    else:
        return
    for path, name, value, complete in entries:
        if not complete:
            yield Problem(path, f"expected NAME=value, got {name[:60]!a}")
        elif not _ENV_NAME.match(name):
            yield Problem(path, f"{name[:60]!a} is not a name of a variable: letters, digits and _, no digit first")
        elif name.startswith("SKED_"):
            yield Problem(path, f"{name[:60]!a}: names that begin with SKED_ are set by the agent")
        elif "\0" in value or not _encodable(value):
            yield Problem(path, "a value can't hold a NUL character or half of a surrogate pair")
        elif len(name) + 1 + len(os.fsencode(value)) > MAX_WORD_BYTES:
            yield Problem(path, f"longer than the {MAX_WORD_BYTES} bytes that Linux takes")


def _printable(name: str) -> str:
    """A name as a part of a path, halves of surrogate pairs written out: they could not be printed."""
    return name.encode(errors="backslashreplace").decode()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
