"""Moves the wall clock of a process to where a file says, as a file that changes has it: seconds from now."""

import contextlib
import os
import time

_real, _file = time.time, os.environ.get("SKED_SKEW_FILE", "")


def _skewed():
    with contextlib.suppress(OSError, ValueError), open(_file) as file:
        return _real() + float(file.read())
    return _real()


if _file:
    time.time = _skewed
