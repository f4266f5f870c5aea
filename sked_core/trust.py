"""Files that decide what runs with the agent's rights: they count only where nobody else can have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sked_core.errors import InvalidConfig
from sked_core.model.spec import plain

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def open_trusted(path: Path) -> int:
    """A descriptor, for reading, of a plain file that nobody can have written or put there but root and this process's
    user. Raises InvalidConfig, with what to do about it, for any other, and OSError where there is none to be read.

    Every folder on the way is opened from the one above, and looked at once it is open; links are followed first, and
    none of them while opening, so that nobody can put another file in its place in between.
    """
    path = path.absolute()
    real = Path(os.path.realpath(path.parent, strict=True)) / path.name
    held = os.open("/", os.O_PATH | os.O_DIRECTORY | _FLAGS)
    try:
        _trust(os.fstat(held), Path("/"), path)
        for folder in [*reversed(real.parents)][1:]:
            below = os.open(folder.name, os.O_PATH | os.O_DIRECTORY | _FLAGS, dir_fd=held)
            os.close(held)
            held = below
            _trust(os.fstat(held), folder, path)
        # Not waiting: it may be a pipe, which nobody writes to.
        file = os.open(real.name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=held)
    finally:
        os.close(held)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidConfig(f"{_shown(path)} is no plain file")
        _trust(facts, real, path)
    except BaseException:
        os.close(file)
        raise
    return file


def _trust(facts: os.stat_result, what: Path, path: Path) -> None:
    """Raises InvalidConfig if ``what``, the file at ``path`` or a folder above it, is not root's or our own, or if
    others may write it. Of a folder with the sticky bit, such as /tmp, only what is somebody's own can be replaced."""
    shown = _shown(what)
    of = "" if what.name == path.name and not stat.S_ISDIR(facts.st_mode) else f", a folder above {_shown(path)},"
    if facts.st_uid not in (0, os.geteuid()):
        raise InvalidConfig(
            f"{shown}{of} belongs to user {facts.st_uid}: only root's files, and those of the agent's own user, count",
            hint=f"chown root {shown}",
        )
    sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        who = "everybody" if facts.st_mode & stat.S_IWOTH else "its group"
        raise InvalidConfig(f"{shown}{of} can be written by {who}", hint=f"chmod go-w {shown}")


def _shown(path: Path) -> str:
    return plain(str(path))
