"""An agent that is not root: it starts, adopts and stops bash tasks as itself, and can be nobody else."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Eventually = Callable[..., Any]
Alive = Callable[[int], bool]
NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who is not")

LIFE = """
store, folder, job, start = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
policy = Policy(sections={"bash": BashPolicy()})
executor = BashExecutor(ExecutorContext("host-1", store, folder, policy))
container = Container(name="c", type="bash", executor=json.loads(start))
definition = TaskDefinition(name="t", version=1, containers=[container])
task = Task(cluster=Cluster(name="k"), task_definition=definition, service="s", instance=0, host="host-1")
seen = executor.recover()
told = {handle.task_id: observation.state.value for handle, observation in seen.items()}
try:
    if job == "stop":
        executor.stop(next(iter(seen)), 30)
    else:
        told["ref"] = executor.start(task, container, {}).ref
except Exception as error:
    told["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told), flush=True)
if job == "die":
    os.kill(os.getpid(), 9)
"""
IMPORTS = """
import ctypes, encodings.idna, fcntl, hashlib, json, os, pty, pwd, secrets, select, shutil, signal, subprocess, sys
import tempfile, threading
from pathlib import Path
from sked_bash import commands, reading, watcher
from sked_bash.executor import BashExecutor
from sked_bash.rights import BashPolicy
from sked_core.model.types import Cluster
from sked_core.plugin import Container, ExecutorContext, Policy, Task, TaskDefinition
"""


@pytest.fixture
def unprivileged(open_folder: Path) -> Callable[..., dict[str, str]]:
    """One life of an agent that runs as nobody; Python and Sked are loaded before, since it may not reach them."""
    open_folder.mkdir()
    os.chown(open_folder, NOBODY.pw_uid, NOBODY.pw_gid)
    store = f"store-{os.urandom(4).hex()}"

    def live(job: str, **spec: Any) -> dict[str, str]:
        become = f"os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid}); os.umask(0o022)\n"
        arguments = [store, str(open_folder), job, json.dumps(spec)]
        ran = subprocess.run(
            [sys.executable, "-c", IMPORTS + become + LIFE, *arguments], capture_output=True, text=True, timeout=120
        )
        assert ran.stdout, ran.stderr
        return json.loads(ran.stdout)

    return live


@as_root
def test_an_agent_that_is_not_root_runs_adopts_and_stops_as_itself(
    unprivileged: Any, open_folder: Path, eventually: Eventually, alive: Alive
) -> None:
    first = unprivileged("die", start="id -un; setsid sleep 1000 & sleep 1000", stop="echo stopped by $(id -un)")
    (home,) = open_folder.glob("*/k-s-1-0/c")
    eventually(lambda: (home / "output.log").read_text() == "nobody\n")
    pid = json.loads((home / "record.json").read_text())["pid"]
    assert "NoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_text()
    second = unprivileged("start", start="id -un; setsid sleep 1000 & sleep 1000", stop="echo stopped by $(id -un)")
    assert second == {"k-s-1-0": "running", "ref": first["ref"]}
    assert unprivileged("stop", start="x") == {"k-s-1-0": "running"}
    assert (home / "output.log").read_text().splitlines()[:2] == ["nobody", "stopped by nobody"]
    assert not alive(pid)
    assert unprivileged("start", start="x", user="nobody")["ref"], "its own user is nobody else"
    unprivileged("stop", start="x")


@as_root
def test_an_agent_that_is_not_root_can_be_nobody_else(unprivileged: Any) -> None:
    assert unprivileged("start", start="x", user="daemon")["error"].startswith("Rejected: policy bash.users")
    code = (
        IMPORTS
        + "os.setuid(65534)\n"
        + (
            "from sked_bash.rights import who\nfrom sked_bash.spec import parse\n"
            "try: who(BashPolicy(run_as='daemon'), parse({'start': 'x'}))\n"
            "except Exception as error: print(error)"
        )
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "the agent runs as nobody, and only as root could it run tasks as daemon", ran.stderr
