"""What a container's ``executor`` object may hold when its type is ``docker``, and everything wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sked_core.plugin import Binding, InvalidValue, Problem, check_spec
from sked_docker import flags as options
from sked_docker import values
from sked_docker.flags import Setting

_Scalar = str | int | float


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the docker executor. Null and empty mean "not said", as in tasks that are written by hand."""

    image: str
    cmd: str | list[_Scalar] | None = None
    entry: str | list[_Scalar] | None = None
    container_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    ports: list[str] | None = None
    env: list[str] | dict[str, bool | _Scalar] | None = None
    work_dir: str | None = None
    volumes: list[str] | None = None
    flags: list[str] | None = None
    name: str | None = None

    @property
    def command(self) -> list[str]:
        """The words of ``cmd``; none for the image's own."""
        return values.words(self.cmd or [])

    @property
    def entry_point(self) -> list[str]:
        """The words of ``entry``; none for the image's own."""
        return values.words(self.entry or [])

    @property
    def variables(self) -> dict[str, str]:
        """``env`` as a mapping, whichever way it was written."""
        if isinstance(self.env, dict):
            return {values.env_name(name): values.argument(_text(value)) for name, value in self.env.items()}
        return dict(values.env_pair(item) for item in self.env or ())

    @property
    def settings(self) -> list[Setting]:
        """The flags as settings of the engine's API, in order."""
        return [found for found in options.read(self.flags or []) if isinstance(found, Setting)]

    @property
    def published(self) -> list[values.PublishedPort]:
        """The fixed ports of the field ``ports``; those of ``-p`` are among ``settings``."""
        return [values.published_port(text) for text in self.ports or ()]


def validate(spec: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with ``spec``; paths are relative to it (``ports[0]``). Pure."""
    # The types of items are looked at below, one by one: msgspec would stop at the first wrong item of a list.
    problems = [problem for problem in check_spec(spec, Spec) if not problem.path.startswith(_OF_ITEMS)]
    broken = {problem.path for problem in problems}
    sound = {name: value for name, value in spec.items() if name not in broken} if isinstance(spec, Mapping) else {}
    return problems + list(_mistakes(sound))


def parse(spec: Mapping[str, Any]) -> Spec:
    """``spec`` as a struct. Raises InvalidValue with all of its problems in one line."""
    problems = validate(spec)
    if problems:
        raise InvalidValue("; ".join(map(str, problems)))
    return msgspec.convert(spec, Spec)


def host_bindings(spec: Mapping[str, Any], port: int) -> frozenset[Binding]:
    """What ``spec`` binds on the host, where ``port`` is the task's. Pure; a broken spec binds nothing."""
    try:
        parsed = parse(spec)
    except InvalidValue:
        return frozenset()
    settings = parsed.settings
    in_host_network = any(s.flag.target == "HostConfig.NetworkMode" and s.value == "host" for s in settings)
    taken = {Binding(one.host_port, one.address, one.protocol) for one in parsed.published}
    for setting in settings:
        if setting.flag.target == "HostConfig.PortBindings":
            for name, ends in setting.value.items():
                protocol = name.partition("/")[2]
                taken |= {Binding(int(end["HostPort"]), end["HostIp"], protocol) for end in ends}
    return frozenset(taken | ({Binding(port)} if port and (parsed.container_port or in_host_network) else set()))


def _mistakes(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What the types of the fields can't say, field by field and item by item."""
    for field, check in _TEXTS.items():
        if spec.get(field) or (field == "image" and field in spec):
            yield from _try(field, check, spec[field])
    for field in ("cmd", "entry"):
        value = spec.get(field) or []
        whole = values.words if isinstance(value, str) else _items
        yield from _try(field, whole, value)
    for field, check_item in _LISTS.items():
        for index, item in enumerate(spec.get(field) or ()):
            yield from _try(f"{field}[{index}]", check_item, item)
    env = spec.get("env") or ()
    if isinstance(env, Mapping):
        for name, value in env.items():
            yield from _try(f"env.{name}", _variable, (name, value))
    else:
        for index, item in enumerate(env):
            yield from _try(f"env[{index}]", _only_text(values.env_pair), item)
    flags = spec.get("flags") or []
    for index, flag in enumerate(flags):
        yield from _try(f"flags[{index}]", _only_text(str), flag)
    for found in options.read([flag if isinstance(flag, str) else "" for flag in flags]):
        if isinstance(found, options.Mistake) and isinstance(flags[found.index], str):
            yield Problem(f"flags[{found.index}]", _printable(found.message))


def _try(path: str, check: Callable[[Any], object], value: object) -> Iterator[Problem]:
    try:
        check(value)
    except ValueError as error:
        yield Problem(_printable(path), _printable(str(error)))


def _printable(text: str) -> str:
    """``text`` with halves of surrogate pairs written out."""
    return text.encode(errors="backslashreplace").decode()


def _only_text(check: Callable[[str], object], advice: str = "") -> Callable[[object], object]:
    def checked(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {value!r:.60}{advice}")
        return check(value)

    return checked


def _items(value: list[object]) -> None:
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise ValueError(f"expected words, got {item!r:.60} among them")
        values.argument(str(item))


def _variable(pair: tuple[object, object]) -> None:
    name, value = pair
    if not isinstance(name, str) or not isinstance(value, (str, int, float)):
        raise ValueError(f'expected a value, got {value!r:.60}; write "" for an empty one')
    values.env_name(name)
    values.argument(_text(value))


_QUOTES = ': write "host:container" in quotes (some YAML readers take 22:22 for the number 1342)'
_TEXTS = {"image": values.image, "work_dir": values.work_dir, "name": values.alias}
_LISTS = {"ports": _only_text(values.published_port, _QUOTES), "volumes": _only_text(values.volume)}
_OF_ITEMS = tuple(f"{field}{mark}" for field in ("cmd", "entry", "ports", "env", "volumes", "flags") for mark in "[.")


def _text(value: bool | str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
