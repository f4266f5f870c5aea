"""What a process does about threads that do not end when it does."""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence

END_SECONDS = 10.0
"""How long what is registered for the end of the process may take."""


def leave_stragglers(code: int) -> None:
    """End the process with ``code`` at once if a thread still waits for an engine that hangs: all that counts is in
    the store, and in the marks of what runs. Returns if there is none."""
    leave(code, _waiting(), seconds=2.0)


def _waiting() -> list[threading.Thread]:
    # Python waits for threads of pools at its end without any bound, daemons or not: those of an agent are daemons,
    # since the thread is one that made them. It keeps them where no public name leads to.
    pooled = getattr(concurrent.futures.thread, "_threads_queues", ())
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and (not thread.daemon or thread in pooled)
    ]


def leave(code: int, waiting: Sequence[threading.Thread], seconds: float) -> None:
    """End the process with ``code`` if one of ``waiting`` still runs after ``seconds``. Returns if none does."""
    deadline = time.monotonic() + seconds
    for thread in waiting:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in waiting):
        # What is to be done at the end is done all the same: plugins have nothing else for their last word.
        ending = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
        ending.start()
        ending.join(END_SECONDS)
        logging.shutdown()
        if sys.stdout is not None:
            sys.stdout.flush()
        os._exit(code)


def bound_end(code: int) -> None:
    """Have the process end with ``code``, whatever plugins have registered for its end or left running: END_SECONDS
    from now at the latest. All that was said is written by then."""
    with contextlib.suppress(OSError):  # whoever read it has gone
        if sys.stdout is not None:
            sys.stdout.flush()

    def cut() -> None:
        time.sleep(END_SECONDS)
        said = f"sked: what plugins left to do took more than {END_SECONDS:g} s: ended without it\n"
        with contextlib.suppress(OSError):
            if sys.stderr is not None:  # closed by the caller: what has its number is another file
                os.write(2, said.encode())
        os._exit(code)

    threading.Thread(target=cut, daemon=True).start()
