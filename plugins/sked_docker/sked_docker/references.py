"""Where an image is from, by its name. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_PINNED = re.compile(r"(?:.+@)?(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


def repository(image: str) -> str:
    """``image`` with its registry, without tag and digest: ``docker.io/library/nginx`` of ``nginx:1.27``, by the rules
    of github.com/distribution/reference. An id stays what it is."""
    if is_id(image):
        return image
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    domain, slash, rest = name.partition("/")
    if slash and (domain == "localhost" or any(char in ".:[" or char.isupper() for char in domain)):
        return f"{'docker.io' if domain == 'index.docker.io' else domain}/{rest}"
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def is_id(image: str) -> bool:
    """Whether the engine may take ``image`` for the id, or the first digits of one, of whatever image it has."""
    return _ID.fullmatch(image) is not None


def is_pinned(image: str) -> bool:
    """Whether it names content and not only a place where content may change."""
    return _PINNED.fullmatch(image) is not None


def allowed(image: str, registries: Sequence[str], *, private: bool) -> bool:
    """Whether an entry of ``registries`` stands for ``image``: whole parts of its name, from the left. ``*`` stands for
    every registry; with ``private`` also for those on this machine or at addresses that only a local network has."""
    name = repository(image)
    if any(name == entry or name.startswith(f"{entry.rstrip('/')}/") for entry in registries):
        return True
    return "*" in registries and (private or is_id(image) or not _is_private(name.partition("/")[0]))


def _is_private(domain: str) -> bool:
    host = domain.partition("]")[0].lstrip("[") if domain.startswith("[") else domain.partition(":")[0]
    host = host.lower()
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        # Resolvers also take 127.1, 2130706433 and 0x7f000001 for addresses: no registry is called like that.
        return re.fullmatch(r"(?:0[xX][0-9a-fA-F]+|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]+|[0-9]+))*", host) is not None
