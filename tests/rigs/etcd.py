"""An etcd of a test's own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rigs.local import Server, ask, free_ports


def call(http: str, method: str, timeout: float = 5, **fields: object) -> dict[str, Any]:
    """One call of etcd's JSON gateway, e.g. ``call(http, "kv/compaction", revision="7")``; {} for no good answer."""
    answer = ask(f"{http}/v3/{method}", body=json.dumps(fields).encode(), timeout=timeout)
    found: dict[str, Any] = json.loads(answer or b"{}")
    return found


def takes_writes(http: str) -> bool:
    """Whether it answers a put: that needs a leader and a quorum."""
    key = base64.b64encode(b"sked-test-probe").decode()
    return bool(call(http, "kv/put", 2, key=key, value="")) and bool(call(http, "kv/deleterange", 2, key=key))


class PrivateEtcd(Server):
    """An etcd server with a data folder of its own, which a test may pause, kill, wipe, compact and start again.

    ``url`` is for Sked, ``http`` for curl and etcdctl. ``flags`` are etcd's own, with ``_`` or ``-``:
    ``quota_backend_bytes=1_000_000``.
    """

    def __init__(self, binary: str, folder: Path, flags: Mapping[str, object]) -> None:
        port, peer = free_ports(2)
        self.http = f"http://127.0.0.1:{port}"
        self.url = f"etcd://127.0.0.1:{port}"
        self._ctl = str(Path(binary).with_name("etcdctl"))
        self._peer = f"http://127.0.0.1:{peer}"
        command = [
            *(binary, "--name", "sked-test", "--data-dir", str(folder / "data"), "--logger", "zap"),
            *("--listen-client-urls", self.http, "--advertise-client-urls", self.http),
            *("--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer),
            *("--initial-cluster", f"sked-test={self._peer}", "--log-level", "warn"),
            *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()),
        ]
        super().__init__(f"etcd at {self.http}", command, folder, lambda: takes_writes(self.http))

    def wipe(self) -> None:
        """Kill it and remove its data; after the next ``start`` it is an empty store."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def compact(self) -> None:
        """Drop all history: only the newest revision can be read and watched from then on."""
        status = call(self.http, "maintenance/status")
        call(self.http, "kv/compaction", revision=status["header"]["revision"], physical=True)

    def save(self, target: Path) -> None:
        """A snapshot of all that it holds, into a file that is not there yet."""
        self._etcdctl("snapshot", "save", str(target), "--endpoints", self.http)

    def restore(self, source: Path) -> None:
        """Kill it and put a snapshot in place of its data; goes on from there after the next ``start``."""
        self.wipe()
        urls = ("--initial-advertise-peer-urls", self._peer, "--initial-cluster", f"sked-test={self._peer}")
        self._etcdctl("snapshot", "restore", str(source), "--name", "sked-test", "--data-dir", str(self.data), *urls)

    def _etcdctl(self, *arguments: str) -> None:
        env = {"ETCDCTL_API": "3"}
        done = subprocess.run([self._ctl, *arguments], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
