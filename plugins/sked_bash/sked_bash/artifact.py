"""Fetching an artifact before a start: over http or https, within limits of size and time, into one folder."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from sked_bash.archive import extract, is_archive
from sked_bash.spec import masked
from sked_core.plugin import ExecutorError

MAX_BYTES = 1024**3
MAX_SECONDS = 600.0
IDLE_SECONDS = 30.0
MAX_REDIRECTS = 5
_CHUNK = 256 * 1024


def fetch(
    url: str,
    target: Path,
    temporary: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Download ``url`` and put it into the folder ``target``, which is created: an archive (.tar, .tar.gz, .tgz,
    .tar.bz2, .tar.xz, .zip) is unpacked, anything else becomes an executable file named as in the URL.

    Nothing is written elsewhere, but for ``temporary`` while it runs. Raises ExecutorError, permanent where the
    artifact itself is at fault. Environment variables for proxies are not looked at.
    """
    name = file_name(url)
    try:
        _download(url, temporary, max_bytes, max_seconds)
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        if is_archive(name):
            extract(temporary, name, target, max_bytes=max_bytes)
        else:
            temporary.chmod(0o755)
            temporary.rename(target / name)
    finally:
        temporary.unlink(missing_ok=True)


def file_name(url: str) -> str:
    """The last segment of the URL's path, made harmless. What the server calls the file does not matter."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:200] or "artifact"


def _download(url: str, target: Path, max_bytes: int, max_seconds: float) -> None:
    line = _Line()
    # The idle limit alone would let a server that sends a byte now and then hold a start up for ever.
    alarm = threading.Timer(max_seconds, line.cut)
    alarm.daemon = True
    alarm.start()
    try:
        with _opener(line).open(_request(url), timeout=min(IDLE_SECONDS, max_seconds)) as response:
            _save(response, target, max_bytes)
        if line.was_cut:
            raise TimeoutError
    except urllib.error.HTTPError as error:
        error.close()
        raise ExecutorError(f"artifact {masked(url)}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"not complete after {max_seconds:.0f} s" if line.was_cut else getattr(error, "reason", None) or error
        raise ExecutorError(f"artifact {masked(url)}: {str(reason) or type(error).__name__}") from None
    finally:
        alarm.cancel()


def _save(response: http.client.HTTPResponse, target: Path, max_bytes: int) -> None:
    declared = response.headers.get("Content-Length")
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    received = 0
    with os.fdopen(fd, "wb") as file:
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > max_bytes:
                raise ExecutorError(f"artifact is larger than the limit of {max_bytes} bytes", permanent=True)
            file.write(chunk)
    if declared is not None and declared.isdigit() and received != int(declared):
        raise OSError(f"cut short: {received} of {declared} bytes came")


def _request(url: str) -> urllib.request.Request:
    """The request; a user and password in the URL go into a header that redirects don't get."""
    parts = urlsplit(url)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    headers = {"Accept-Encoding": "identity", "User-Agent": "sked"}
    request = urllib.request.Request(plain, headers=headers)  # noqa: S310 -- the opener knows http and https only
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    return request


class _Line:
    """The connections of one download, which another thread may cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.was_cut = False

    def add(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connected)
        if self.was_cut:
            self.cut()

    def cut(self) -> None:
        self.was_cut = True
        with self._lock:
            for connected in self._sockets:
                with suppress(OSError):  # closed already
                    # Not SSLSocket's own, which takes the session away from under the thread that reads.
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Plain(http.client.HTTPConnection):
    def __init__(self, line: _Line, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.add(self.sock)


class _Secure(http.client.HTTPSConnection):
    def __init__(self, line: _Line, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.add(self.sock)


class _Http(urllib.request.AbstractHTTPHandler):
    """Opens http and https through connections that can be cut. Certificates are verified."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Plain, self._line), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Secure, self._line), request)

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, to http and https only, and never from https to http."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise urllib.error.URLError(f"the server redirects from {old}: to {new}:, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(line: _Line) -> urllib.request.OpenerDirector:
    # Not build_opener: that one adds file:, ftp:, data: and the proxies of the environment.
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Http(line),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
