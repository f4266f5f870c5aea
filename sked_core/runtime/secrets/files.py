"""The provider ``file``: one file per secret, below a folder of the host."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sked_core.errors import Denied, InvalidValue, NotFound, Unavailable
from sked_core.interfaces.secrets import MAX_SECRET_BYTES, Secret, SecretContext
from sked_core.model.spec import check_spec

DEFAULT_FOLDER = Path("/etc/sked/secrets")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LINKS = (errno.ELOOP, errno.ENOTDIR)
"""What O_NOFOLLOW answers for a link, and with O_DIRECTORY for one or for a file."""
_READ_BY_ALL, _WRITTEN_BY_OTHERS = 0o007, 0o022


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``folder``: absolute; it, what is in it, and what is above it can be written by root or the agent's user only."""

    folder: str = str(DEFAULT_FOLDER)


class SecretFiles:
    """A secret ``shop/db-password`` is the file of that name; one newline at its end is left out. No link is followed:
    each part of a name is opened below the one before. A version is what the file system says of the file."""

    def __init__(self, context: SecretContext) -> None:
        if problems := check_spec(context.settings, FileSettings, "secrets.providers.file"):
            raise InvalidValue("; ".join(map(str, problems)))
        self._folder = Path(msgspec.convert(context.settings, FileSettings).folder)
        if not self._folder.is_absolute() or ".." in self._folder.parts:
            raise InvalidValue(f"secrets.providers.file.folder: expected an absolute path, got {self._folder}")

    def read(self, name: str, key: str) -> Secret:
        if key:
            raise NotFound("a file has no keys: leave key out")
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise NotFound(f"no file can be called {name}")
        with ExitStack() as opened:
            folder = self._open(self._folder, None, _FOLDER, opened, shown=str(self._folder))
            for part in parts[:-1]:
                folder = self._open(Path(part), folder, _FOLDER, opened, shown=f"{self._folder}/{name}")
            file = self._open(Path(parts[-1]), folder, _FILE, opened, shown=f"{self._folder}/{name}")
            return self._content(file, f"{self._folder}/{name}")

    def problems(self) -> list[str]:
        try:
            with ExitStack() as opened:
                self._open(self._folder, None, _FOLDER, opened, shown=str(self._folder))
        except NotFound:
            return [f"there is no folder {self._folder}: make it with  install -d -m 0700 {self._folder}"]
        except (Denied, Unavailable) as error:
            return [str(error)]
        return [self._unsafe(path) for path in self._folder.parents if self._unsafe(path)]

    def close(self) -> None:
        """Nothing is kept open."""

    def _open(self, path: Path, folder: int | None, flags: int, opened: ExitStack, *, shown: str) -> int:
        try:
            found = os.open(path, flags, dir_fd=folder)
        except FileNotFoundError:
            raise NotFound(f"there is no {shown}") from None
        except PermissionError:
            raise Denied(f"{shown} can't be read by the agent's user") from None
        except OSError as error:
            kind = Denied if error.errno in _LINKS else Unavailable
            raise kind(f"{shown} can't be opened: {error.strerror}; links are not followed") from None
        opened.callback(os.close, found)
        state = os.fstat(found)
        if state.st_uid not in (0, os.geteuid()):
            raise Denied(f"{shown} belongs to user {state.st_uid}: let root or the agent's user have it")
        if state.st_mode & _WRITTEN_BY_OTHERS:
            raise Denied(f"{shown} can be written by others than its owner: chmod go-w")
        if not stat.S_ISDIR(state.st_mode) and state.st_mode & _READ_BY_ALL:
            raise Denied(f"{shown} can be read by everybody: chmod o-rwx")
        return found

    def _content(self, file: int, shown: str) -> Secret:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise Denied(f"{shown} is no regular file")
        data = b""
        try:
            while len(data) <= MAX_SECRET_BYTES and (more := os.read(file, MAX_SECRET_BYTES + 1 - len(data))):
                data += more
        except OSError as error:
            raise Unavailable(f"{shown} can't be read: {error.strerror}") from None
        after = os.fstat(file)
        version = _version(before)
        if _version(after) != version:
            raise Unavailable(f"{shown} was written while it was read; write a new file and rename it")
        if len(data) > MAX_SECRET_BYTES:
            raise Denied(f"{shown} is larger than {MAX_SECRET_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Denied(f"{shown} is no UTF-8 text") from None
        return Secret(text.removesuffix("\n").removesuffix("\r"), version)

    def _unsafe(self, path: Path) -> str:
        state = path.stat()
        sticky = state.st_mode & stat.S_ISVTX
        if state.st_uid not in (0, os.geteuid()) or (state.st_mode & _WRITTEN_BY_OTHERS and not sticky):
            return f"{path}, above {self._folder}, can be written by others than root and the agent's user"
        return ""


def _version(state: os.stat_result) -> str:
    return f"{state.st_ino:x}.{state.st_mtime_ns:x}.{state.st_size:x}"
