"""Places where a process can be told to die, or to stand still, to try what comes of it. Nothing happens unless the
environment says so: ``SKED_FAILPOINT=name``, ``name:3`` (the third time there), ``name:1:stop`` (SIGSTOP instead).
docs/fault-campaign.md lists the names."""

from __future__ import annotations

import itertools
import os
import signal
import threading

CODE = 137
"""The exit code, as of a process that was killed (SIGKILL)."""
_NAME, _TURN, _HOW = (*os.environ.get("SKED_FAILPOINT", "").split(":"), "", "")[:3]
_hits = itertools.count(1)


def failpoint(name: str) -> None:
    """Die here and now, like by SIGKILL, if the environment says so."""
    if name == _NAME and next(_hits) == int(_TURN or 1):
        if _HOW == "stop":
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # os.kill lets this thread go on for a moment
        else:
            os._exit(CODE)
