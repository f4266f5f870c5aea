"""Who may do what: a file of tokens with roles, read again when it changes.

A line of the file is ``NAME ROLE TOKEN``; ``#`` begins a comment. The token may stand as ``sha256:HEX``, so that who
reads a backup of the file can't use it. A name may come twice, which is how a token is replaced without a gap.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sked_core.errors import InvalidManifest, InvalidValue, Problem
from sked_core.model.spec import did_you_mean, plain

MAX_BYTES = 1024 * 1024
SHORTEST = 16
"""Characters of a token at least: nobody tries out 16 random ones, while people think up shorter ones."""
REREAD_SECONDS = 1.0
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


class Role(IntEnum):
    """What a caller may do; each role includes those below it. ``READ``: look. ``OPERATE``: act on what is declared
    (scale, restart, stop, roll-outs, marks, rebalance). ``ADMIN``: declare, delete, exec, write to the store."""

    READ = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """How it is spelled in the file and in messages."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the name beside the token (empty without one), and what that one may do."""

    name: str
    role: Role


class Tokens:
    """The tokens of ``path``. A change of the file counts from a second later on; one that can't be read leaves what
    was known in force, and is told by ``trouble``. Any number of threads may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = _fingerprint(path)
        self._known = load(path)
        self._looked = time.monotonic()
        self.trouble = ""

    def caller(self, token: str) -> Caller | None:
        """Whose ``token`` it is; None if it is nobody's. Takes as long for any token."""
        given = _digest(token)
        found: Caller | None = None
        for digest, caller in self._current():
            if hmac.compare_digest(digest, given):
                found = caller
        return found

    def _current(self) -> list[tuple[bytes, Caller]]:
        with self._lock:
            if time.monotonic() - self._looked >= REREAD_SECONDS:
                self._looked = time.monotonic()
                self._look()
            return self._known

    def _look(self) -> None:
        try:
            seen = _fingerprint(self._path)
            if seen != self._seen:
                self._known, self._seen, self.trouble = load(self._path), seen, ""
        except (InvalidManifest, InvalidValue) as error:
            self.trouble = str(error)


def load(path: Path) -> list[tuple[bytes, Caller]]:
    """The digest of each token of the file with whose it is. Raises InvalidManifest with every mistake of the file,
    InvalidValue where it can't be read or others than its owner may read it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InvalidValue(
            f"tokens in {path} may be read by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"try: chmod 600 {path}",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise InvalidValue(
            f"{path} belongs to another user (uid {status.st_uid}), who could give any role",
            hint=f"try: chown {os.geteuid()} {path}",
        )
    if len(data) > MAX_BYTES:
        raise InvalidValue(f"{path} is larger than {MAX_BYTES} bytes")
    found: list[tuple[bytes, Caller]] = []
    problems: list[Problem] = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            parsed = _parsed(words)
            if isinstance(parsed, str):
                problems.append(Problem("", parsed, file=str(path), line=number, column=1))
            elif any(digest == parsed[0] for digest, _ in found):
                problems.append(Problem("", "this token stands here twice", file=str(path), line=number, column=1))
            else:
                found.append(parsed)
    if not problems and not found:
        problems.append(Problem("", "holds no token; a line is: NAME ROLE TOKEN", file=str(path)))
    if problems:
        raise InvalidManifest(problems)
    return found


def _parsed(words: list[str]) -> tuple[bytes, Caller] | str:
    """A line's token and caller, or what is wrong with it; no message quotes a token."""
    if len(words) != 3:
        return "expected NAME ROLE TOKEN"
    name, role, token = words
    roles = {one.word: one for one in Role}
    if role not in roles:
        return f'no role "{plain(role[:20])}"{did_you_mean(role, roles) or "; roles are " + ", ".join(roles)}'
    if not name.isprintable() or len(name) > 100:
        return "a name has at most 100 printable characters"
    hashed = _HASHED.fullmatch(token)
    if not hashed and token.startswith("sha256:"):
        return "expected 64 hexadecimal digits after sha256:"
    if not hashed and len(token) < SHORTEST:
        return f"a token has at least {SHORTEST} characters, such as those of: openssl rand -hex 32"
    digest = bytes.fromhex(hashed[1]) if hashed else _digest(token)
    return digest, Caller(name, roles[role])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _fingerprint(path: Path) -> tuple[int, int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode


def _unreadable(path: Path, error: OSError) -> InvalidValue:
    return InvalidValue(f"can't read the tokens in {path}: {error.strerror}", hint="a line is: NAME ROLE TOKEN")
