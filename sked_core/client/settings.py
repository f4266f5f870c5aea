"""Settings, each from the nearest place that names it: flag, environment, --config, /etc/sked/sked.toml, default."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sked_core.errors import InvalidManifest, InvalidValue, Problem
from sked_core.model.amount import to_cpu_units, to_mb, to_port_range
from sked_core.model.duration import to_seconds
from sked_core.model.spec import check_spec, plain
from sked_core.model.types import Host_, Name
from sked_core.runtime.plugins.rules import PluginRules, Rule

Package = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")]
SYSTEM_FILE = Path("/etc/sked/sked.toml")
MAX_BYTES = 1024 * 1024
PARSED: dict[str, Callable[[Any], object]] = {
    "memory": to_mb,
    "cpu": lambda cores: to_cpu_units(str(cores)),
    "disk": to_mb,
    "port_range": to_port_range,
    "lost_after": to_seconds,
}
"""Settings that are more than their type: what raises InvalidValue for a wrong one."""
_PLACE = re.compile(r" *\(at (?:line (\d+), column (\d+)|end of document)\)")


class PluginTable(Struct, frozen=True, kw_only=True):
    """Packages by name: see ``PluginRules``."""

    allow: list[Package] | None = None
    deny: list[Package] | None = None
    require: list[Package] | None = None


class ConfigFile(Struct, frozen=True, kw_only=True):
    """What a configuration file may say; None or empty where it says nothing."""

    backend: str | None = None
    prefix: str | None = None
    host: Host_ | None = None
    address: str | None = None
    state_dir: str | None = None
    policy: str | None = None
    tags: dict[str, str] | None = None
    allow_executors: list[str] | None = None
    allow_clusters: list[Name] | None = None
    max_tasks: Annotated[int, Meta(ge=1)] | None = None
    memory: str | None = None
    cpu: Annotated[float, Meta(gt=0)] | None = None
    disk: str | None = None
    port_range: str | None = None
    lost_after: str | None = None
    signing_key: str | None = None
    listen: str | None = None
    tokens: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_hosts: list[str] | None = None
    log_format: Literal["text", "json"] | None = None
    plugins: PluginTable | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it is from, as people would find it again; empty for a default. ``file``: the configuration
    file that says it, if one does."""

    value: str
    origin: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The store, and for ``run`` what the configuration files say of this host."""

    backend: Setting
    prefix: Setting
    file: ConfigFile
    policy: Setting = Setting("")
    """Of the agent here: ``development``, a file, or nothing for the default. A flag comes before it."""
    plugins: PluginRules = field(default_factory=PluginRules)


def resolve(*, backend: str | None = None, prefix: str | None = None, config: str | None = None) -> Settings:
    """The settings, given what the command line says (None: nothing).

    Raises InvalidManifest with every mistake of the files; a file that was asked for must exist.
    """
    files = config_files(config)
    fields: dict[str, Any] = {}
    for _, file in reversed(files):
        fields |= {name: value for name in file.__struct_fields__ if (value := getattr(file, name)) is not None}
    store = _first("backend", backend, files)
    if store is None:
        from sked_core.runtime.plugins.backend import default_url

        store = Setting(default_url())
    below = _first("prefix", prefix, files) or Setting("")
    policy = _first("policy", None, files) or Setting("")
    return Settings(backend=store, prefix=below, file=ConfigFile(**fields), policy=policy, plugins=_rules(files))


def config_files(config: str | None = None) -> list[tuple[Path, ConfigFile]]:
    """The configuration files that count, the nearest first. Raises as ``resolve`` does."""
    chosen = config or os.environ.get("SKED_CONFIG")
    paths = ([Path(chosen)] if chosen else []) + ([SYSTEM_FILE] if SYSTEM_FILE.is_file() else [])
    return [(path, _load(path)) for path in paths]


def _rules(files: list[tuple[Path, ConfigFile]]) -> PluginRules:
    """Each rule as the nearest place has it: the environment, then the files."""
    said = PluginRules.of_environment()
    for path, file in files:
        for name in PluginTable.__struct_fields__ if file.plugins else ():
            if getattr(said, name) is None and (packages := getattr(file.plugins, name)) is not None:
                said = said._replace(**{name: Rule.of(packages, f"{path}: plugins.{name}")})
    return said


def _first(name: str, flag: str | None, files: list[tuple[Path, ConfigFile]]) -> Setting | None:
    if flag is not None:
        return Setting(flag, f"--{name} {masked(flag)}")
    variable = f"SKED_{name.upper()}"
    if value := os.environ.get(variable):
        return Setting(value, f"{variable}={masked(value)}")
    for path, file in files:
        if (value := getattr(file, name)) is not None:
            return Setting(value, f"{path}: {name} = {masked(value)}", path)
    return None


def own_state_dir(settings: Settings, host: str) -> Path:
    """Where an agent keeps its notes by default: one folder for each host name and store, so that several of them can
    share a machine."""
    import hashlib

    from sked_core.runtime.plugins.backend import default_url

    store = hashlib.sha256(f"{settings.backend.value}\n{settings.prefix.value}".encode()).hexdigest()[:8]
    return Path(default_url().removeprefix("sqlite://")).parent / "agents" / f"{host}-{store}"


def masked(url: str) -> str:
    """``url`` without what may be a secret, fit for printing."""
    return plain(re.sub(r"(\?[^=]*=).*", r"\1***", re.sub(r"(://)[^/@]*@", r"\1***@", url)))


def _load(path: Path) -> ConfigFile:
    import tomllib

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _invalid(path, f"can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _invalid(path, f"is larger than {MAX_BYTES} bytes")
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidManifest([_syntax_problem(path, data, str(error))]) from None
    problems = check_spec(content, ConfigFile)
    for name, parse in PARSED.items():
        try:
            if name in content and not problems:
                parse(content[name])
        except InvalidValue as error:
            problems = [Problem(name, str(error))]
    if problems:
        text = data.decode()
        raise InvalidManifest(
            [Problem(p.path, p.message, file=str(path), line=_line(text, p.path), column=1) for p in problems]
        )
    return msgspec.convert(content, ConfigFile)


def _syntax_problem(path: Path, data: bytes, message: str) -> Problem:
    place = _PLACE.search(message)
    line, column = 0, 0
    if place:
        line, column = (int(place[1]), int(place[2])) if place[1] else (len(data.splitlines()), 1)
    return Problem("", _PLACE.sub("", message), file=str(path), line=line, column=column)


def _line(text: str, path: str) -> int:
    """The line that sets the key, as far as a look at the text can tell; 0 if it can't."""
    key = re.match(r"[\w-]+", path)
    found = key and re.search(rf"^[ \t]*(?:\[\s*)?[\"']?{re.escape(key[0])}[\"']?\s*[\]=.]", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _invalid(path: Path, message: str) -> InvalidManifest:
    return InvalidManifest([Problem("", message, file=str(path))])
