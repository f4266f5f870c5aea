"""One POST, all of it within a deadline but for looking up the name, and with an answer of bounded size, of which the
body is never read. No redirect is followed and no proxy of the environment is asked."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sked_core.plugin import InvalidValue, to_seconds
from sked_notify.config import Hook

MAX_RETRY_AFTER = 60.0
MAX_HEAD_BYTES = 64 * 1024
"""Of an answer's status and headers."""
_AGAIN = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``why``: what went wrong, without anything that the other side sent; empty where it took the message. ``again``:
    whether the same message may be taken later. ``after``: seconds that the other side asks for."""

    status: int = 0
    why: str = ""
    again: bool = False
    after: float = 0.0


def post(hook: Hook, body: bytes, kind: str) -> Outcome:
    """Never raises."""
    try:
        url, headers = urlsplit(hook.address()), hook.all_headers()
        context = _tls(hook) if url.scheme == "https" else None
    except InvalidValue as error:
        return Outcome(why=str(error), again=True)  # a file that is being replaced comes back
    host, target = url.hostname or "", (url.path or "/") + (f"?{url.query}" if url.query else "")
    timeout = to_seconds(hook.timeout)
    port, until = url.port or (443 if context else 80), time.monotonic() + timeout
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = 443 if context else 80  # what is left out of the header Host
    connection.response_class = _Short
    # Who sends a byte now and then passes every timeout of the socket: the connection itself has to go.
    late = threading.Event()
    timer = threading.Timer(timeout, _hang_up, (connection, late))
    timer.daemon = True
    try:
        timer.start()
        connection.sock = _connected(host, port, until)
        if context is not None:
            # Known to the timer before the handshake begins: each message of that may come byte by byte, too.
            tls = context.wrap_socket(connection.sock, server_hostname=host, do_handshake_on_connect=False)
            connection.sock = tls
            if not late.is_set():
                tls.do_handshake()
        if late.is_set():
            raise TimeoutError
        connection.request("POST", target, body, {"User-Agent": "sked-notify", "Content-Type": kind, **headers})
        answer = connection.getresponse()
        return _outcome(answer.status, answer.headers.get("Retry-After") or "")
    except (OSError, http.client.HTTPException, ValueError, RuntimeError) as error:
        return Outcome(why="it took too long" if late.is_set() else _why(error), again=True)
    finally:
        timer.cancel()
        connection.close()


class _TooLong(http.client.HTTPException):
    pass


class _Head:
    """The file that an answer is read from, as far as MAX_HEAD_BYTES."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise _TooLong
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Short(http.client.HTTPResponse):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.fp = _Head(self.fp)  # type: ignore[assignment]  # all that it is asked for until the body


def _connected(host: str, port: int, until: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, with what is left until then for each step on
    it. Raises OSError."""
    failed: OSError = TimeoutError()
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        left = until - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((str(address[0]), port), timeout=left)
        except OSError as error:
            failed = error
    raise failed


def _outcome(status: int, retry_after: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status)
    if 300 <= status < 400:
        return Outcome(status, f"{status}, a redirect, which is not followed: name where it leads")
    after = min(float(retry_after), MAX_RETRY_AFTER) if retry_after.isdecimal() and len(retry_after) < 9 else 0.0
    return Outcome(status, f"answered {status}", again=status >= 500 or status in _AGAIN, after=after)


def _tls(hook: Hook) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=hook.ca_file or None)
    except (OSError, ssl.SSLError):
        raise InvalidValue(f"{hook.ca_file} can't be read as certificates") from None


def _hang_up(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "no TLS connection"
    if isinstance(error, _TooLong):
        return f"its answer begins with more than {MAX_HEAD_BYTES // 1024} KiB of headers"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return type(error).__name__
