"""Who types: what events and marks call the person behind a command."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from typing import TYPE_CHECKING

from sked_core.model.spec import plain
from sked_core.surface.options import Session

if TYPE_CHECKING:
    from sked_core.runtime.journal import Journal

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


def told_by(session: Session) -> Journal:
    """The events of this command: ``put`` goes into the commit that makes them true, ``tell`` after it."""
    from sked_core.clock import SystemClock
    from sked_core.runtime.journal import Journal

    who = by_whom()
    # Two commands of one person at the same time must not take the same key.
    source = f"{who}-{secrets.token_hex(4)}"
    return Journal(session.store, SystemClock(), who, session.plugins.observe, source=source)
