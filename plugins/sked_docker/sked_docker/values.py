"""The small grammars of ``docker run``: ports, volumes, sizes, images and the like, as the engine's API wants them.

Every function takes the text that a user wrote and returns plain data, or raises ValueError with a message that
says what was expected and what was found. Nothing here reads a file, a variable or the clock.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import InvalidValue, to_nanoseconds

MAX_ARGUMENT_BYTES = 128 * 1024 - 1
"""Linux refuses to execute a program with a longer argument or variable (MAX_ARG_STRLEN of execve(2))."""

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
# The reference grammar of github.com/distribution/reference, with sha256 and sha512 as the digests that exist.
_IMAGE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(?:@(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?"
)
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
_VOLUME_OPTIONS = frozenset(("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", *PROPAGATIONS))
_ALIAS = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENV_NAME = re.compile(r"[^=\s\x00-\x1f\x7f]{1,255}")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_IMAGE = 512


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """``host_port`` of the host (on ``address``, empty: every one) leads to ``container_port``."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    address: str = ""


def image(text: str) -> str:
    """An image reference: ``[registry/]name[:tag][@digest]``."""
    if not text.strip():
        raise ValueError('expected the name of an image such as "nginx:1.27", got nothing')
    if text.startswith("-"):
        raise ValueError(f'"{text[:60]}" is an option, not an image; options belong into flags')
    if len(text) > _LONGEST_IMAGE or not _IMAGE.fullmatch(text):
        raise ValueError(
            f'expected an image such as "nginx:1.27" or "registry.example:5000/team/web", got {_show(text)}'
        )
    return text


def published_port(text: str) -> PublishedPort:
    """``[address:]host:container[/protocol]``; the address of IPv6 stands in brackets."""
    ports, slash, protocol = text.partition("/")
    if slash and protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"expected tcp, udp or sctp behind the slash, got {_show(protocol)}")
    head, colon, container = ports.rpartition(":")
    address, _, host = head.rpartition(":")
    if not colon:
        raise ValueError(f'expected "host:container", e.g. "5000:{text[:5]}": Sked has to know the port on the host')
    if "-" in host or "-" in container:
        raise ValueError(f"expected one port, got the range {_show(text)}; give each port its own line")
    if address:
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        try:
            address = str(ipaddress.ip_address(bare))
        except ValueError:
            raise ValueError(f"expected the address of an interface before the ports, got {_show(bare)}") from None
    return PublishedPort(port_number(host), port_number(container), protocol or "tcp", address)


def alias(text: str) -> str:
    """A second name of the container, by the rule for all names in Sked."""
    if not _ALIAS.fullmatch(text):
        raise ValueError(f"expected 1 to 63 of a-z 0-9 -, first and last not a hyphen, got {_show(text)}")
    return text


def port_number(text: str) -> int:
    """A port from 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, got {_show(text)}")
    return int(text)


def exposed_port(text: str) -> str:
    """``80`` or ``80/udp`` as the engine names it."""
    number, _, protocol = text.partition("/")
    if protocol not in ("", "tcp", "udp", "sctp"):
        raise ValueError(f"expected tcp, udp or sctp behind the slash, got {_show(protocol)}")
    return f"{port_number(number)}/{protocol or 'tcp'}"


def volume(text: str) -> str:
    """``src:dst[:options]``: src an absolute path of the host or the name of a volume, dst an absolute path."""
    parts = text.split(":")
    if _CONTROL.search(text) or not 2 <= len(parts) <= 3 or not all(parts):
        raise ValueError(f'expected "source:/path/in/container[:ro]", got {_show(text)}')
    source, target = parts[:2]
    if source.startswith("/"):
        absolute_path(source)
    else:
        volume_name(source)
    absolute_path(target)
    if target.strip("/") == "":
        raise ValueError("a volume can't be mounted over the container's root \"/\"")
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option not in _VOLUME_OPTIONS:
            raise ValueError(f"unknown option {_show(option)} of a volume; most need only ro")
    return text


def volume_name(text: str) -> str:
    """The name of a volume, which the engine is asked about by its path: none that leads elsewhere."""
    if not _VOLUME_NAME.fullmatch(text):
        raise ValueError(f"expected an absolute path of the host or the name of a volume first, got {_show(text)}")
    return text


def absolute_path(text: str) -> str:
    """An absolute path without ``..``."""
    if not text.startswith("/") or ".." in text.split("/") or _CONTROL.search(text):
        raise ValueError(f'expected an absolute path without "..", got {_show(text)}')
    return text


def work_dir(text: str) -> str:
    """An absolute path within the container; /proc is refused (a way out to the host, CVE-2024-21626)."""
    steps = [step for step in absolute_path(text).split("/") if step not in ("", ".")]
    if steps[:1] == ["proc"]:
        raise ValueError("expected a folder of the container, got one below /proc")
    return text


def env_pair(text: str) -> tuple[str, str]:
    """``K=V`` as its two halves."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f'expected "NAME=value", got {_show(text)}; nothing is taken over from the agent\'s environment'
        )
    return env_name(name), argument(value)


def env_name(name: str) -> str:
    """The name of a variable that a task may set for itself."""
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(f"expected the name of a variable, got {_show(name)}")
    if name == "PROVIDED_PORT" or name.startswith("SKED_"):
        raise ValueError(f"{name} is set by Sked and can't be set here")
    return name


def argument(text: str) -> str:
    """Text that can be handed to a program: no NUL, not longer than the kernel takes."""
    if "\0" in text:
        raise ValueError("a NUL character can't be passed to a program")
    if len(text.encode("utf-8", "replace")) > MAX_ARGUMENT_BYTES:
        raise ValueError(f"longer than the {MAX_ARGUMENT_BYTES} bytes that can be passed to a program")
    return text


def words(value: str | list[str | int | float]) -> list[str]:
    """A command as its words: a list as it is, a string split like a shell would (no shell expands or runs it)."""
    if isinstance(value, str):
        text = argument(value)
        try:
            return shlex.split(text)
        except ValueError as error:
            raise ValueError(f"can't be split into words: {str(error).lower()}") from None
    return [argument(str(part)) for part in value]


def size(text: str) -> int:
    """Bytes of ``512m``, ``1.5g`` or ``1048576``; units are powers of 1024, as docker's are."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f'expected a size such as "512m" or "2g", got {_show(text)}')
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def size_or_unlimited(text: str) -> int:
    """A size, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def duration(text: str) -> int:
    """Nanoseconds of ``1m30s``."""
    try:
        return to_nanoseconds(text)
    except InvalidValue as error:
        raise ValueError(str(error)) from None


def whole(least: int, most: int = 2**53) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,16}", text) or not least <= int(text) <= most:
            limit = f"from {least}" if most == 2**53 else f"from {least} to {most}"
            raise ValueError(f"expected a whole number {limit}, got {_show(text)}")
        return int(text)

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes only ``choices``; one that ends in ``:`` stands for everything that begins with it."""

    def parse(text: str) -> str:
        for choice in choices:
            if text.startswith(choice) and (len(text) > len(choice)) == choice.endswith(":"):
                return text
        raise ValueError(
            f"expected {' or '.join(c + '…' if c.endswith(':') else c for c in choices)}, got {_show(text)}"
        )

    return parse


def plain(text: str) -> str:
    """Any text without control characters, but not none."""
    if not text or _CONTROL.search(text):
        raise ValueError(f"expected plain text, got {_show(text)}")
    return text


def boolean(text: str) -> bool:
    """``true`` or ``false``, in the forms that docker takes."""
    if text not in ("true", "false", "1", "0", "True", "False", "TRUE", "FALSE", "t", "f", "T", "F"):
        raise ValueError(f"expected true or false, got {_show(text)}")
    return text[0] in "tT1"


def pair(text: str) -> dict[str, str]:
    """``key=value`` (or ``key`` alone, for an empty value) as a mapping of one."""
    key, _, value = plain(text).partition("=")
    if not key:
        raise ValueError(f'expected "key=value", got {_show(text)}')
    return {key: value}


def described(fields: str, known: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """``a=1,b=2,c`` with each value parsed by ``known[name]``; a bare name stands for ``true``."""
    found: dict[str, Any] = {}
    for part in plain(fields).split(","):
        name, equals, value = part.partition("=")
        if name not in known:
            raise ValueError(f"unknown option {_show(name)}; known are {', '.join(known)}")
        found[name] = known[name](value if equals else "true")
    return found


def _show(text: str) -> str:
    return f'"{text[:60]}"' if text.isprintable() else repr(text[:60])
