"""One request at a time to the server, each on a connection of its own, all of it within a deadline.

No redirect is followed and no proxy of the environment is used: the token goes to the address that was named, and
nowhere else.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sked_core.plugin import InvalidValue, Unavailable

DEADLINE_SECONDS = 3.5
"""Of one request; a read takes four at most."""
MAX_ANSWER_BYTES = 1024 * 1024
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: the JSON of the answer; empty where it is none, or no mapping."""

    status: int
    body: Mapping[str, Any]

    @property
    def errors(self) -> list[str]:
        """What the server complains about, each in one line."""
        found = self.body.get("errors")
        return [" ".join(str(one).split())[:200] for one in found] if isinstance(found, list) else []


class Server:
    """``address``: a URL of scheme, host and port. Plain http only to this very host: it would show the token, and
    every secret, to whoever is on the way. ``ca_file``: whom to trust instead of the system's authorities."""

    def __init__(self, address: str, *, ca_file: str = "", plain_http: bool = False) -> None:
        try:
            parts = urlsplit(address)
            self.host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidValue("secrets.providers.vault.address is no URL") from None
        if parts.scheme not in ("http", "https") or not self.host or parts.path not in ("", "/"):
            raise InvalidValue("secrets.providers.vault.address: expected https://HOST:PORT")
        if parts.username is not None or parts.query or parts.fragment:
            raise InvalidValue("secrets.providers.vault.address: expected https://HOST:PORT and nothing else")
        self._tls = parts.scheme == "https"
        if not self._tls and self.host not in _LOOPBACK and not plain_http:
            hint = "use https, or say plain_http: true"
            raise InvalidValue("secrets.providers.vault.address: http would show the token on the way", hint=hint)
        self.port = port or (443 if self._tls else 80)
        self._ca_file = ca_file

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None) -> Answer:
        """Raises Unavailable where no whole answer came in time."""
        connection = self._connection()
        # A server that sends a byte now and then passes every timeout of the socket: the connection itself has to go.
        late = threading.Event()
        timer = threading.Timer(DEADLINE_SECONDS, _hang_up, (connection, late))
        timer.daemon = True
        timer.start()
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, body=data, headers={**headers, "Accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = "it took too long" if late.is_set() else _why(error)
            raise Unavailable(f"Vault at {self} does not answer: {why}") from None
        finally:
            timer.cancel()
            connection.close()
        if late.is_set() or answer.length or len(text) > MAX_ANSWER_BYTES:
            raise Unavailable(f"Vault at {self} gave an answer that is cut off or too large")
        if 300 <= answer.status < 400:
            raise Unavailable(f"Vault at {self} answers with a redirect, which is not followed: name the active one")
        return Answer(answer.status, _mapping(text))

    def _connection(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE_SECONDS)
        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable(f"{self._ca_file} can't be read: {error.strerror or error.__class__.__name__}") from None
        return http.client.HTTPSConnection(self.host, self.port, timeout=DEADLINE_SECONDS, context=context)


def _hang_up(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    """In words, without what the server sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "no TLS connection"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return type(error).__name__


def _mapping(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
