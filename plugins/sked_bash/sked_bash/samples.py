"""What the kit of executors tries the ``bash`` executor with."""

from sked_bash.plugin import bash
from sked_core.testing.samples import ExecutorSample

BASH = ExecutorSample(
    type="bash",
    make=bash,
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
    listens=lambda port: {
        "start": f"exec python3 -c 'import socket, time; s = socket.create_server((\"\", {port})); time.sleep(1000)'"
    },
)
