"""A machine whose first process is systemd, as a container."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rigs.needs import missing, program
from rigs.sked import PATIENCE

IMAGE = "sked-test/systemd:1"
STORE = "sqlite:///var/lib/shared/sked.db"


class Machine:
    """A container whose first process is systemd."""

    def __init__(self, *mounts: Path) -> None:
        """``mounts``: folders of this machine that are to be seen in there, at the same place, and only to be read."""
        self._docker = program("docker", "docker.io")
        if self.docker("image", "inspect", IMAGE).returncode:
            missing("container", f"there is no image {IMAGE}: run scripts/systemd-image")
        # What systemd needs, short of everything: it mounts, and it makes groups of processes.
        rights = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--env", "container=docker"]
        places = ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "--tmpfs", "/tmp"]
        places += [part for path in mounts for part in ("--volume", f"{path}:{path}:ro")]
        self.name = self.docker("run", "--detach", *rights, *places, IMAGE).stdout.strip()
        try:
            self.until(
                "systemd", lambda: self.run("systemctl is-system-running").stdout.strip() in ("running", "degraded")
            )
        except AssertionError:
            said = self.docker("logs", self.name).stderr[-500:] if self.name else "no container"
            self.close()
            missing("container", f"systemd does not start in a container here: {said}")

    def docker(self, *arguments: str | Path, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._docker, *arguments], capture_output=True, text=True, timeout=patience)

    def run(self, command: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        told = ["exec", "--env", "HOME=/root", "--env", f"SKED_BACKEND={STORE}"]
        return self.docker(*told, self.name, "bash", "-c", command, patience=patience)

    def done(self, command: str) -> str:
        ran = self.run(command)
        logs = self.run("journalctl --no-pager --lines=40").stdout if ran.returncode else ""
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}\n{logs}"
        return ran.stdout

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := holds()):
            assert time.monotonic() < deadline, f"never: {what}\n{self.run('journalctl --no-pager --lines=40').stdout}"
            time.sleep(0.3)
        return found

    def shown(self, unit: str, what: str) -> str:
        return self.done(f"systemctl show --property={what} --value {unit}").strip()

    def tasks(self) -> list[dict[str, Any]]:
        return json.loads(self.done("/opt/sked/bin/sked tasks -o json"))["items"]

    def close(self) -> None:
        if self.name:
            self.docker("rm", "--force", self.name)
