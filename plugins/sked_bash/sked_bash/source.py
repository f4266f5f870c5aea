"""What a bash container says about its artifact: where it comes from, what it must be, where it goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from sked_bash.addresses import ALLOWED, as_address, fault
from sked_core.plugin import Artifacts, Denial, Problem

PORTS = {"http": 80, "https": 443}
_CHECKSUM = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")


class ArtifactSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``checksum``: ``sha256:`` and 64 hexadecimal digits. ``to``: a folder within the task's own. ``extract: none``:
    an archive stays one file."""

    url: str
    checksum: str | None = ""
    to: str | None = ""
    extract: Literal["auto", "none"] = "auto"


@dataclass(frozen=True, slots=True)
class Source:
    """An artifact, once its spec has no problems. ``checksum``: 64 hexadecimal digits, or nothing."""

    url: str
    checksum: str = ""
    to: str = ""
    unpack: bool = True

    @property
    def name(self) -> str:
        return file_name(self.url)


def source_of(artifact: str | ArtifactSpec | None, download_dir: str | None) -> Source | None:
    """What is to be fetched, if anything."""
    if not artifact:
        return None
    if isinstance(artifact, str):
        return Source(artifact, to=download_dir or "")
    checksum = (artifact.checksum or "").removeprefix("sha256:").lower()
    return Source(artifact.url, checksum, artifact.to or "", artifact.extract == "auto")


def problems_of(artifact: object, download_dir: object) -> Iterator[Problem]:
    """What is wrong with both fields as users wrote them, where they have the right types."""
    if download_dir:
        yield from (Problem("download_dir", message) for message in folder_problems(str(download_dir)))
        if not artifact:
            yield Problem("download_dir", "says where the artifact goes, but there is no artifact")
        elif isinstance(artifact, Mapping):
            yield Problem("download_dir", "goes with an artifact that is a text only; here it is artifact.to")
    if isinstance(artifact, Mapping):
        yield from _map_problems(artifact)
    elif artifact:
        yield from (Problem("artifact", message) for message in url_problems(str(artifact)))


def warnings_of(artifact: object) -> Iterator[Problem]:
    """What is better not written so, of an artifact without problems."""
    mapped = isinstance(artifact, Mapping)
    url = artifact.get("url") if isinstance(artifact, Mapping) else artifact
    if isinstance(url, str) and not any(url_problems(url)) and urlsplit(url).password:
        message = "holds a password, which all can read who can read the store"
        yield Problem("artifact.url" if mapped else "artifact", message, warning=True)


def _map_problems(artifact: Mapping[str, Any]) -> Iterator[Problem]:
    url, checksum, to = (artifact.get(name) for name in ("url", "checksum", "to"))
    if isinstance(url, str):
        yield from (Problem("artifact.url", message) for message in url_problems(url))
    if isinstance(checksum, str) and checksum and not _CHECKSUM.match(checksum):
        kind = checksum.partition(":")[0] if ":" in checksum else ""
        advice = f"{kind[:20]!a} is not one that is taken; " if kind not in ("", "sha256") else ""
        yield Problem("artifact.checksum", f'{advice}expected "sha256:" and 64 hexadecimal digits (sha256sum FILE)')
    if isinstance(to, str) and to:
        yield from (Problem("artifact.to", message) for message in folder_problems(to))


def url_problems(url: str) -> Iterator[str]:
    """What keeps ``url`` from being fetched by anybody; says nothing of its user and password."""
    if not url.isascii() or not url.isprintable() or any(mark in url for mark in ' \\"<>^`{|}'):
        yield "a URL is printable ASCII without spaces; percent-encode the rest"
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield "not a URL"
        return
    if parts.scheme not in PORTS:
        yield f'only http:// and https:// artifacts are fetched, got "{url.partition(":")[0][:20]}:"'
    elif not host:
        yield "the URL names no host"
    elif parts.netloc.count("@") > 1 or parts.netloc.endswith(":") or parts.port == 0:
        yield "it is not clear which host the URL names; percent-encode @ and : in the user's name and the password"
    elif "%" in host or (
        as_address(host) is None and (not _HOST.match(host.rstrip(".")) or _NUMBER.match(host.split(".")[-1]))
    ):
        yield f"{host[:60]!a} is neither a host name nor an address as it is usually written (192.0.2.1, [2001:db8::1])"
    elif len(url) > 8192:
        yield "longer than 8192 characters"


def _is_name(host: str) -> bool:
    """Not for a number, be it ``0x7f000001`` or ``127.1``: resolvers take those for addresses."""
    return bool(_HOST.match(host)) and not _NUMBER.match(host.rpartition(".")[2])


def folder_problems(folder: str) -> Iterator[str]:
    """What keeps ``folder`` from being one within a task's own."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or folder.startswith("~"):
        yield (
            f"{folder[:60]!a} lies outside of the task's own folder, where alone an artifact may write; "
            'use a relative path such as "bin" and call ./bin/NAME in start'
        )
    elif (
        not folder.isprintable()
        or "\\" in folder
        or folder[1:2] == ":"
        or len(folder) > 1024
        or len(path.parts) > 32
        or any(len(os.fsencode(part)) > 255 for part in path.parts)
    ):
        yield "not a path: printable names of at most 255 bytes, parted by /"


def denials(source: Source, policy: Artifacts) -> list[Denial]:
    """What ``policy`` does not allow of it, as far as its spec tells: addresses of names are looked up as it is
    fetched. Pure."""
    found = url_denials(source.url, policy)
    if not source.checksum and not policy.without_checksum:
        what = f'{masked(source.url)} has no checksum (artifact: {{url: …, checksum: "sha256:…"}})'
        found.append(Denial("artifacts.without_checksum", what, "artifacts: {without_checksum: true}"))
    return found


def url_denials(url: str, policy: Artifacts) -> list[Denial]:
    """What ``policy`` does not allow of one URL, that of an artifact or of a redirect. Pure."""
    found, parts = [], urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme != "https" and not policy.plain_http:
        what = f"{masked(url)} is not fetched over https"
        found.append(Denial("artifacts.plain_http", what, "artifacts: {plain_http: true}"))
    if policy.hosts and not any(_matches(host, one.lower().rstrip(".")) for one in policy.hosts):
        line = f"artifacts: {{hosts: [{', '.join((*policy.hosts, host))}]}}"
        found.append(Denial("artifacts.hosts", f"{masked(url)} is at a host that is not listed", line))
    address = as_address(host)
    if address is not None and (why := fault(address, private=policy.private_addresses)):
        found.append(address_denial(url, host, why))
    return found


def address_denial(url: str, address: str, why: str) -> Denial:
    """That ``address``, which the host of ``url`` has, is one that is not fetched from."""
    line = ALLOWED.get(why, "")
    what = f"{masked(url)} is at {address}, {why}"
    return Denial("artifacts.private_addresses", what, line or "(no line allows that)")


def masked(url: str) -> str:
    """``url`` without user, password, query and fragment: fit for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path[:200]}"


def file_name(url: str) -> str:
    """The last segment of the URL's path, made harmless. What the server calls the file does not matter."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:200] or "artifact"


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
