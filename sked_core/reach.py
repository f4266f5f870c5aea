"""From where an address can be reached."""

from __future__ import annotations

import ipaddress
import socket


def beyond_this_machine(host: str) -> bool:
    """Whether ``host`` is reached over anything but the loopback interface. One that no name leads to is not."""
    try:
        found = {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # that it can't be reached is said elsewhere
    return not all(ipaddress.ip_address(one).is_loopback for one in found)
