"""Fetching a file that nobody vouches for, from a server that nobody vouches for: over http and https, within limits of
size, time and patience, from addresses that the policy allows, with a few tries.

The connection is made to the very address that was judged, so that a name which is looked up again can't lead anywhere
else (DNS rebinding), and each redirect is judged like the first URL. Environment variables for proxies are not looked
at. Only the standard library's parser of answers is used; its clients would follow, resolve and decode by themselves.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import IO
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from sked_bash.addresses import Resolve, as_address, fault, resolved, system_resolve
from sked_bash.source import PORTS, Source, address_denial, masked, url_denials, url_problems
from sked_bash.unpack import DiskFull
from sked_core.plugin import Artifacts, ExecutorError, Rejected

MAX_REDIRECTS = 5
MAX_HEAD_BYTES = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 64 * 1024
_SLICE_SECONDS = 0.5
_MAX_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take. ``step``: seconds for connecting, for an answer to begin, and for at least ``least``
    bytes of it to come, again and again. ``tries``: at most, with pauses that begin with ``pause`` seconds."""

    step: float = 30.0
    least: int = 30 * 1024
    tries: int = 5
    pause: float = 1.0


@dataclass(frozen=True, slots=True)
class Downloader:
    """Fetches as ``policy`` allows. ``resolve`` looks up names."""

    policy: Artifacts
    patience: Patience = field(default_factory=Patience)
    resolve: Resolve = system_resolve

    def fetch(self, source: Source, file: IO[bytes], deadline: float, called_off: Event) -> None:
        """Write what ``source`` names into ``file``, which is emptied before.

        Raises Rejected where the policy denies it, ExecutorError otherwise: permanent where the artifact is at fault,
        DiskFull, or when ``deadline`` (monotonic seconds) passes or ``called_off`` is set. What goes wrong on the way
        is tried again; answers of the kind 4xx, wrong contents and denials are not.
        """
        tries = 0
        while True:
            tries += 1
            try:
                with _on_disk():
                    file.seek(0)
                    file.truncate()
                self._once(source, file, deadline, called_off)
                return
            except _OnTheWay as error:
                # Full jitter between half and all of it: hosts that failed together don't come back together.
                pause = min(30.0, self.patience.pause * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
                if tries >= self.patience.tries or time.monotonic() + pause >= deadline or called_off.wait(pause):
                    tried = f" (tried {tries} times)" if tries > 1 else ""
                    raise ExecutorError(f"artifact {masked(source.url)}: {error}{tried}") from None

    def _once(self, source: Source, file: IO[bytes], deadline: float, called_off: Event) -> None:
        url = source.url
        for _ in range(MAX_REDIRECTS + 1):
            found = url_denials(url, self.policy)
            if found:
                raise Rejected("; ".join(str(denial) for denial in found))
            with self._connected(url, deadline, trusting=not source.checksum) as sock:
                line = _Line(sock, self.patience, deadline, called_off)
                with _ask(sock, line, url, _authorization(source.url, url)) as answer:
                    if answer.status not in _REDIRECTS:
                        self._take(answer, line, source, file)
                        return
                    url = _next(url, answer, source)
        raise ExecutorError(f"artifact {masked(source.url)}: more than {MAX_REDIRECTS} redirects")

    def _take(self, answer: http.client.HTTPResponse, line: _Line, source: Source, file: IO[bytes]) -> None:
        where, most = f"artifact {masked(source.url)}", self.policy.max_bytes
        if answer.status >= 500:
            raise _OnTheWay(f"the server answered {answer.status}")
        if answer.status != 200:
            raise ExecutorError(f"{where}: the server answered {answer.status}")
        encodings = [*(answer.headers.get_all("Content-Encoding") or ()), *_transfer(answer)]
        if any(one.strip().lower() not in ("", "identity") for one in encodings):
            raise ExecutorError(f"{where}: the server sends it encoded, though asked not to", permanent=True)
        lengths = set(answer.headers.get_all("Content-Length") or ())
        if len(lengths) > 1:
            raise ExecutorError(f"{where}: the server tells two lengths")
        large = ExecutorError(f"{where} is larger than the limit of {most} bytes (artifacts.max_bytes)", permanent=True)
        if answer.length is not None and answer.length > most:
            raise large
        declared, received, hashed = answer.length, 0, hashlib.sha256()
        line.body(2 * most + 1024 * 1024)  # what chunks add to it is bounded by that
        with _on_the_way():
            while chunk := answer.read(_CHUNK):
                received += len(chunk)
                if received > most:
                    raise large
                hashed.update(chunk)
                with _on_disk():
                    file.write(chunk)
        if declared is not None and received != declared:
            raise _OnTheWay(f"cut short: {received} of {declared} bytes came")
        if source.checksum and hashed.hexdigest() != source.checksum:
            raise ExecutorError(
                f"{where} is not what it should be: its checksum is sha256:{hashed.hexdigest()}, "
                f"not sha256:{source.checksum}",
                permanent=True,
            )
        with _on_disk():
            file.flush()

    @contextmanager
    def _connected(self, url: str, deadline: float, *, trusting: bool) -> Iterator[socket.socket]:
        """A connection to the host of ``url``. ``trusting``: the end of the answer has to be told by TLS, since nothing
        else would show that somebody cut it."""
        parts, step = urlsplit(url), self.patience.step
        host, port = (parts.hostname or "").rstrip("."), _port(parts)
        with _on_the_way():
            addresses = [host] if as_address(host) else resolved(self.resolve, host, port, _left(deadline, step))
            for one in addresses:  # one that is not allowed is a trap, whatever the others are
                address = as_address(one)
                why = "not an address" if address is None else fault(address, private=self.policy.private_addresses)
                if why:
                    raise Rejected(str(address_denial(url, one, why)))
            sock = _connect(addresses[:_MAX_ADDRESSES], port, deadline, step)
        try:
            if parts.scheme == "https":
                with _on_the_way():
                    sock.settimeout(_left(deadline, step))
                    sock = _context().wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=not trusting)
            yield sock
        finally:
            sock.close()


class _OnTheWay(Exception):
    """Something went wrong that may go well next time."""


@contextmanager
def _on_the_way() -> Iterator[None]:
    """Have what networks and servers do to a download told in one way."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ExecutorError(f"the server's certificate is not trusted: {error.verify_message}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _OnTheWay(str(getattr(error, "strerror", "") or error) or type(error).__name__) from None


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "make room on the disk of the agent's state folder"
        raise DiskFull(f"an artifact can't be kept: {error.strerror or error}", hint=hint) from None


class _Line(io.RawIOBase):
    """What comes from a server, for as long as it comes fast enough and is not too much."""

    def __init__(self, sock: socket.socket, patience: Patience, deadline: float, called_off: Event) -> None:
        self._sock, self._patience, self._deadline, self._called_off = sock, patience, deadline, called_off
        self._left, self._head = MAX_HEAD_BYTES, True
        self._since, self._came = time.monotonic(), 0

    def body(self, most: int) -> None:
        """The head is over; ``most`` bytes may follow."""
        self._left, self._head = most, False
        self._since, self._came = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            now = time.monotonic()
            if self._called_off.is_set():
                raise ExecutorError("artifact: given up")
            if now >= self._deadline:
                raise ExecutorError("artifact: not complete in time (artifacts.seconds)")
            if now - self._since >= self._patience.step:
                if self._head or self._came < self._patience.least:
                    raise TimeoutError(f"the server is too slow: {self._came} bytes in {self._patience.step:g} s")
                self._since, self._came = now, 0
            if self._left <= 0:
                raise ExecutorError(f"artifact: {'headers' if self._head else 'an answer'} without end", permanent=True)
            wait = min(self._since + self._patience.step, self._deadline, now + _SLICE_SECONDS) - now
            self._sock.settimeout(max(0.001, wait))
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                continue
            self._left -= count
            self._came += count
            return count


@contextmanager
def _ask(sock: socket.socket, line: _Line, url: str, authorization: str) -> Iterator[http.client.HTTPResponse]:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: sked",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    with _on_the_way():
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer = http.client.HTTPResponse(sock, method="GET")
        answer.fp.close()
        answer.fp = io.BufferedReader(line, 8192)
        answer.begin()
    try:
        yield answer
    finally:
        answer.close()


def _authorization(first: str, url: str) -> str:
    """For user and password of the URL that people wrote: no other server gets them."""
    ours, parts = urlsplit(first), urlsplit(url)
    same = (ours.scheme, ours.hostname, _port(ours)) == (parts.scheme, parts.hostname, _port(parts))
    if ours.username is None or not same:
        return ""
    user = f"{unquote(ours.username)}:{unquote(ours.password or '')}"
    return "Basic " + base64.b64encode(user.encode()).decode()


def _next(url: str, answer: http.client.HTTPResponse, source: Source) -> str:
    """Where a redirect leads. Raises ExecutorError where it is not followed."""
    where, to = f"artifact {masked(source.url)}", answer.headers.get("Location", "")
    try:
        target = urljoin(url, to) if to else ""
    except ValueError:
        target = ""
    problem = next(url_problems(target), "") if target else "it does not say where to"
    if problem:
        raise ExecutorError(f"{where}: the server redirects, which is not followed: {problem}")
    if url.startswith("https:") and not target.startswith("https:"):
        raise ExecutorError(f"{where}: the server redirects from https: to http:, which is not followed")
    return target


def _transfer(answer: http.client.HTTPResponse) -> list[str]:
    """Encodings of the way that nobody undoes here."""
    return [one for one in answer.headers.get_all("Transfer-Encoding") or () if one.strip().lower() != "chunked"]


def _connect(addresses: list[str], port: int, deadline: float, step: float) -> socket.socket:
    last: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_left(deadline, min(10.0, step)))
        except OSError as error:
            last = error
    raise last or OSError("no address")


def _context() -> ssl.SSLContext:
    """Trusts what this host trusts (and what SSL_CERT_FILE of the agent's environment names)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _port(parts: SplitResult) -> int:
    return parts.port or PORTS.get(parts.scheme, 0)


def _left(deadline: float, most: float) -> float:
    return max(0.001, min(most, deadline - time.monotonic()))
