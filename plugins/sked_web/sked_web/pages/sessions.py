"""Who looks at the page: sessions that a token opened, and the proof that a form came from this very page."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass

from sked_core.serving.tokens import Caller, Role

LIFETIME = 12 * 3600.0
"""Seconds until a session ends, however much it is used: a working day."""
MOST = 1000
"""Sessions at once; the oldest gives way."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever a page is made for. ``proof``: what forms have to carry."""

    caller: Caller
    proof: str
    logged_in: bool = False

    @property
    def name(self) -> str:
        return self.caller.name

    def may(self, role: str) -> bool:
        """Whether the role (``read``, ``operate``, ``admin``) is among what this one may do."""
        return self.caller.role >= Role[role.upper()]


class Sessions:
    """Sessions by the secret in their cookies, in this process's memory: they end with it, or when their token does.
    Any number of threads may ask."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._open: dict[bytes, tuple[float, str]] = {}

    def begin(self, token: str) -> str:
        """The secret for the cookie of a new session of whoever has ``token``."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._drop()
            while len(self._open) >= MOST:
                del self._open[min(self._open, key=lambda one: self._open[one][0])]
            self._open[_digest(cookie)] = (time.monotonic(), token)
        return cookie

    def token(self, cookie: str) -> str | None:
        """The token that opened the session; None if there is no such session (any more). It is kept, and asked about
        each time, so that a token that is taken back ends its sessions."""
        with self._lock:
            found = self._open.get(_digest(cookie))
            return found[1] if found and time.monotonic() - found[0] < LIFETIME else None

    def end(self, cookie: str) -> None:
        """Nothing if there is none."""
        with self._lock:
            self._open.pop(_digest(cookie), None)

    def _drop(self) -> None:
        now = time.monotonic()
        for key in [key for key, (began, _) in self._open.items() if now - began >= LIFETIME]:
            del self._open[key]

    def proof(self, cookie: str) -> str:
        """What a form has to carry that is sent with ``cookie``: others can't make it."""
        return hmac.new(self._secret, cookie.encode(errors="replace"), hashlib.sha256).hexdigest()

    def proves(self, cookie: str, proof: str) -> bool:
        """Whether the form came from a page that was made for the bearer of ``cookie``."""
        return hmac.compare_digest(self.proof(cookie).encode(), proof.encode(errors="replace"))


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
