"""What the kits try this executor with: `sked plugins check sked-systemd`, on a host with systemd, as root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sked_core.plugin import ExecutorContext
from sked_core.testing.samples import ExecutorSample
from sked_systemd.executor import SystemdExecutor
from sked_systemd.units import Units

_LISTEN = 'import socket, sys, time; s = socket.create_server(("", int(sys.argv[1]))); time.sleep(100000)'


def _census(context: ExecutorContext) -> int:
    units = Units(context.host, context.store_uid).name("", "").rpartition("-")[0] + "-*"
    listed = ["systemctl", "list-units", "--all", "--no-legend", "--plain", units]
    return len(subprocess.run(listed, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines())


def _lacks() -> str:
    if not Path("/run/systemd/system").is_dir():  # as sd_booted(3) has it
        return "a machine that systemd has booted"
    return "" if os.geteuid() == 0 else "root, whose units these are"


SYSTEMD = ExecutorSample(
    type="systemd",
    make=SystemdExecutor,
    stays={"start": "exec sleep 100000"},
    wrong=[{}, {"start": ""}, {"start": "x", "user": "0"}, {"start": "x", "properties": {"ExecStart": "/bin/true"}}],
    script=lambda script: {"start": script},
    unstartable={"start": "exec sleep 100000", "working_directory": "/no/such/folder"},
    denied={"start": "exec sleep 100000", "properties": {"ProtectSystem": "no"}},
    listens=lambda port: {"start": f"exec python3 -c '{_LISTEN}' {port}"},
    limits=("memory", "pids"),
    census=_census,
    needs=_lacks,
)
