"""Commands in containers: the program says what to run on the host, and the bridge runs it and carries the bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sked_core.plugin import ExecRequest, ExecutorError, HostCommand, clean_environment, own_account, plain, spawn


class Told(Protocol):
    """What the program answered."""

    command: list[str]
    env: dict[str, str]
    cwd: str


def run(told: Told, request: ExecRequest) -> HostCommand:
    """Begin what the program told, as the agent's own user. Raises ExecutorError where it can't be run."""
    who = own_account()
    env = clean_environment(who) | told.env | ({"TERM": request.term} if request.term else {})

    def begin(argv: Sequence[str], *given: int) -> subprocess.Popen[bytes]:
        stdin, stdout, stderr = given
        return spawn(
            argv,
            who,
            env=env,
            cwd=Path(told.cwd),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            new_privileges=True,
        )

    try:
        return HostCommand(told.command, begin, tty=request.tty, rows=request.rows, columns=request.columns)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise ExecutorError(f"{plain(told.command[0][:200])} can't be run: {what}") from None
