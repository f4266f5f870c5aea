"""What the kit of executors tries the ``bash`` executor with."""

from __future__ import annotations

from sked_bash import groups, record
from sked_bash.executor import BashExecutor
from sked_core.plugin import ExecutorContext
from sked_core.testing.samples import ExecutorSample

_LISTEN = "exec python3 -c 'import socket, time; s = socket.create_server((\"\", {})); time.sleep(1000)'"


def bash_sample() -> ExecutorSample:
    """The sample. What is limited depends on this host's control groups."""
    return ExecutorSample(
        type="bash",
        make=BashExecutor,
        stays={"start": "exec sleep 1000"},
        wrong=[
            {},
            {"start": ""},
            {"start": "true", "user": "No One", "env": ["=1"]},
            {"start": "true", "stop": 5, "env": {"SKED_TASK_ID": "mine"}},
            {"start": "true", "artifact": "ftp://example.com/a", "download_dir": "../.."},
        ],
        script=lambda script: {"start": script},
        unstartable={"start": "true", "user": "no-such-user-here"},
        denied={"start": "true", "user": "root"},
        listens=lambda port: {"start": _LISTEN.format(port)},
        limits=[one for one in ("memory", "pids") if one in groups.here().controllers],
        census=_count,
    )


def _count(context: ExecutorContext) -> int:
    """How many records there are: the processes themselves are found by what the kit puts into their environment."""
    executor = BashExecutor(context)
    try:
        return len(list((context.state_dir / executor._scope).glob(f"*/*/{record.RECORD}")))
    finally:
        executor.close()
