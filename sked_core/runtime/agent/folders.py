"""Whether a folder is safe from other users of the machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def replaceable(folder: Path) -> str:
    """How somebody other than root and this process's user could put another folder in its place, or write into it;
    ``""`` if nobody could. A folder with the sticky bit, such as /tmp, lets people replace only what is their own."""
    real = Path(os.path.realpath(folder))
    for one in (real, *real.parents):
        about = one.stat()
        if about.st_uid not in (0, os.geteuid()):
            return f"{one} belongs to another user (uid {about.st_uid})"
        if about.st_mode & 0o002 and not (about.st_mode & stat.S_ISVTX and one != real):
            return f"everybody may write to {one} (mode {stat.S_IMODE(about.st_mode):04o})"
    return ""
