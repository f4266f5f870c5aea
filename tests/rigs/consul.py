"""A Consul of a test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from rigs.local import Server, ask, free_ports


class PrivateConsul(Server):
    """A Consul server with a data folder of its own, which a test may pause, kill, wipe and start again.

    ``url`` is for Sked, ``http`` for curl. ``settings`` go into Consul's configuration.
    """

    def __init__(self, binary: str, folder: Path, settings: Mapping[str, object]) -> None:
        port, server, serf = free_ports(3)
        self.http = f"http://127.0.0.1:{port}"
        self.url = f"consul://127.0.0.1:{port}"
        config = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "sked-test",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": str(folder / "data"),
            "log_level": "warn",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "performance": {"raft_multiplier": 1},
            "ports": {"http": port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1},
            **settings,
        }
        command = [binary, "agent", "-config-file", str(folder / "config.json")]
        super().__init__(f"Consul at {self.http}", command, folder, self._takes_writes)
        (folder / "config.json").write_text(json.dumps(config))

    def wipe(self) -> None:
        """Kill it and remove its data; after the next ``start`` it is an empty store."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def _takes_writes(self) -> bool:
        """A leader alone is not enough: right after a start a write may still be refused."""
        key = f"{self.http}/v1/kv/sked-test-probe"
        return (
            (ask(key, body=b"x", method="PUT", timeout=2) or b"").strip() == b"true"
            and ask(key, method="DELETE", timeout=2) is not None
            and ask(f"{self.http}/v1/agent/self", timeout=2) is not None
        )
