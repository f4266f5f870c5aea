"""Commands that people run beside a task: in its environment and folder, but apart from what keeps it alive.

Their mark is the task's behind a prefix: whoever asks whether the task still runs does not find them, and whoever ends
it does (see ``Instance.left``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sked_bash.spec import COMMAND_MARK, MARK
from sked_bash.starting import Spawn
from sked_core.plugin import ExecRequest, ExecutorError, HostCommand

_PLAIN = 'exec "$@"'
_AGAIN_SECONDS = 0.5


def run(folder: Path, mark: str, env: Mapping[str, str], request: ExecRequest, bash: str, spawn: Spawn) -> HostCommand:
    """Begin ``request`` by ``spawn`` in ``folder``, beside the task that bears ``mark`` and has ``env``. Raises
    ExecutorError."""
    env = {**env, MARK: COMMAND_MARK + mark} | ({"TERM": request.term} if request.term else {})
    plain = [] if request.tty else [bash, "-c", _PLAIN, "sked exec"]  # a terminal has a shell start it anyway
    try:
        return HostCommand(
            [*plain, *request.command],
            lambda argv, *given: spawn(argv, cwd=folder, env=env, stdin=given[0], stdout=given[1], stderr=given[2]),
            tty=request.tty,
            rows=request.rows,
            columns=request.columns,
            sh=bash,
            terminal_uid=spawn.who.uid,
        )
    except OSError as error:
        raise ExecutorError(f"{request.command[0]} can't be run: {error.strerror or error}") from error
    except ValueError as error:  # a NUL within
        raise ExecutorError(f"{request.command[0]!r} can't be run: {error}") from error


@contextmanager
def hung_up(commands: Sequence[HostCommand]) -> Iterator[None]:
    """Tell ``commands`` that their callers are gone, and tell them again if they are still there a moment later: a bash
    that just begins to read its terminal acts on the first time only with its next input (1 of 300 did). Nothing waits
    for that."""

    def hang_up() -> None:
        for one in commands:
            one.hang_up()

    hang_up()
    again = threading.Timer(_AGAIN_SECONDS, hang_up)
    if commands:
        again.start()
    try:
        yield
    finally:
        again.cancel()
