"""Consul agents: a server of a test's own, and what the members of a cluster are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rigs.local import Server, ask, free_ports


class ConsulAgent(Server):
    """One agent, server or client, by what its configuration says. It takes writes once a leader can be reached.

    ``http`` is where curl reaches it, ``url`` where Sked does. ``within`` goes before the command.
    """

    def __init__(
        self, binary: str, folder: Path, config: Mapping[str, object], *, address: str, within: tuple[str, ...] = ()
    ) -> None:
        self.http, self.url = f"http://{address}", f"consul://{address}"
        command = [*within, binary, "agent", "-config-file", str(folder / "config.json")]
        super().__init__(f"Consul at {self.http}", command, folder, self._takes_writes)
        common = {
            "data_dir": str(self.data),
            "log_level": "warn",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "performance": {"raft_multiplier": 1},
        }
        (folder / "config.json").write_text(json.dumps(common | dict(config)))

    def _takes_writes(self) -> bool:
        """A leader alone is not enough: right after a start a write may still be refused."""
        key = f"{self.http}/v1/kv/sked-test-probe"
        return (
            (ask(key, body=b"x", method="PUT", timeout=2) or b"").strip() == b"true"
            and ask(key, method="DELETE", timeout=2) is not None
            and ask(f"{self.http}/v1/agent/self", timeout=2) is not None
        )


class PrivateConsul(ConsulAgent):
    """A Consul server with a data folder of its own, which a test may pause, kill, wipe and start again.

    ``settings`` go into Consul's configuration.
    """

    def __init__(self, binary: str, folder: Path, settings: Mapping[str, object]) -> None:
        port, server, serf = free_ports(3)
        config = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "sked-test",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {"http": port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1},
        }
        settings = dict(settings)
        config["ports"] |= settings.pop("ports", {})  # type: ignore[operator]
        super().__init__(binary, folder, config | settings, address=f"127.0.0.1:{port}")
