"""What had better be otherwise in how Consul is used."""

from __future__ import annotations

import socket

import psutil


def doubts(host: str) -> list[tuple[str, str]]:
    """``host``: where the Consul agent is that the URL names. Checks run, and tasks are registered, there."""
    own = {one.address.partition("%")[0] for some in psutil.net_if_addrs().values() for one in some}
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:
        return []  # that it can't be reached is said elsewhere
    if any(address in own or address.startswith("127.") for address in found):
        return []
    what = f"the Consul agent at {host} is not one of this machine: an agent here would register its tasks there"
    return [(what, "run a Consul agent on every host with a Sked agent, and name it:  consul://127.0.0.1:8500")]
