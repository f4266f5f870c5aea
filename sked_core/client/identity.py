"""Who types: what events and marks call the person behind a command."""

from __future__ import annotations

import getpass
import os
import socket

from sked_core.model.spec import plain

MAX_WHO = 200


def by_whom() -> str:
    """``user@host`` of whoever runs this command, behind sudo too; printable, never empty, never raises."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER")
    try:
        user = user or getpass.getuser()
    except (KeyError, OSError, ImportError):  # a uid that no user has, as in many containers
        user = f"uid-{os.getuid()}"
    try:
        host = socket.gethostname()
    except OSError:
        host = ""
    return plain(f"{user}@{host or 'localhost'}")[:MAX_WHO]
