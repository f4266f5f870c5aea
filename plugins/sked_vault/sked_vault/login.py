"""The token that the agent shows to the server: from a file that is read again when it changes, from a variable, or by
AppRole."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Protocol

from sked_core.plugin import Denied, InvalidValue, Unavailable
from sked_vault.http import Server

MAX_TOKEN_BYTES = 16 * 1024
RENEW_AT = 0.7
"""How much of a login's life is used before there is another one."""


class Login(Protocol):
    def token(self, *, fresh: bool = False) -> str:
        """The token to show. ``fresh``: the one before was refused. Raises Unavailable, Denied."""
        ...


class TokenFile:
    """A file such as Vault's own agent writes. Read for each request: it is small, and may be another one by now."""

    def __init__(self, path: str) -> None:
        self._path = _absolute(path, "token_file")

    def token(self, *, fresh: bool = False) -> str:
        return read_private(self._path)


class TokenVariable:
    """A variable that the agent was started with, which is taken out of its environment."""

    def __init__(self, name: str) -> None:
        self._name, self._token = name, os.environ.pop(name, "").strip()

    def token(self, *, fresh: bool = False) -> str:
        if not self._token:
            raise Unavailable(f"the agent was started without {self._name}")
        return self._token


class AppRole:
    """A login by role and secret id (a file). ``mount``: where the method is enabled."""

    def __init__(self, server: Server, role_id: str, secret_id_file: str, mount: str, headers: dict[str, str]) -> None:
        self._server, self._role, self._path = server, role_id, _absolute(secret_id_file, "secret_id_file")
        self._mount, self._headers = mount, headers
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def token(self, *, fresh: bool = False) -> str:
        with self._lock:
            if fresh or not self._token or time.monotonic() >= self._until:
                self._log_in()
            return self._token

    def _log_in(self) -> None:
        given = {"role_id": self._role, "secret_id": read_private(self._path)}
        answer = self._server.ask("POST", f"/v1/auth/{self._mount}/login", self._headers, given)
        auth = answer.body.get("auth")
        token = auth.get("client_token") if isinstance(auth, dict) else None
        if answer.status != 200 or not isinstance(auth, dict) or not isinstance(token, str) or not token:
            raise Unavailable(f"Vault at {self._server} does not let this agent log in ({answer.status})")
        seconds = auth.get("lease_duration")
        lasts = float(seconds) if isinstance(seconds, int) and seconds > 0 else float("inf")
        self._token, self._until = token, time.monotonic() + RENEW_AT * lasts


def read_private(path: Path) -> str:
    """The content of a file with a credential. Raises Unavailable where there is none yet, Denied where others could
    have read or written it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unavailable(f"{path} can't be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o027:
            raise Denied(f"{path} has to belong to root or the agent's user, and be readable by nobody else: chmod 600")
        try:
            found = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise Unavailable(f"{path} holds no token") from None
    if not found or not found.isprintable() or " " in found:
        raise Unavailable(f"{path} holds no token")
    return found


def _absolute(path: str, field: str) -> Path:
    if not path.startswith("/"):
        raise InvalidValue(f"secrets.providers.vault.{field}: expected an absolute path")
    return Path(path)
