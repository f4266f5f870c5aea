"""Commands that people run beside a task: in its environment and folder, but apart from what keeps it alive.

Their mark is the task's behind a prefix: whoever asks whether the task still runs does not find them, and whoever ends
it does (see ``Instance.left``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sked_bash.spec import COMMAND_MARK, MARK
from sked_bash.starting import Spawn
from sked_core.plugin import ExecRequest, ExecutorError, HostCommand

_PLAIN = 'exec "$@"'


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
