"""Which addresses artifacts are fetched from: those of the public internet, unless the policy says more.

The table is IANA's of special-purpose addresses (RFC 6890, iana-ipv4-special-registry and iana-ipv6-special-registry)
rather than ``ipaddress.is_global``, which many Python versions have wrong: with 3.11.7 Oracle's metadata service
(192.0.0.192) and site-local addresses (fec0::/10) pass for global.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

PRIVATE = "an address of a private network or of this host"
LINK_LOCAL = "a link-local address, where clouds keep their metadata"
ODD = "an address that no server on the internet has"
ALLOWED = {PRIVATE: "artifacts: {private_addresses: true}"}
"""What allows an address of that kind. Nothing does for the others."""

_PRIVATE = [
    ipaddress.ip_network(one)
    for one in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
]
_LINK_LOCAL = [ipaddress.ip_network(one) for one in ("169.254.0.0/16", "fe80::/10", "fec0::/10")]
_METADATA = [
    ipaddress.ip_network(one)
    for one in ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128")
]
"""Metadata services outside of the link-local range: Alibaba's, Azure's (a public address), and on IPv6 AWS's (with the
credentials of its container services), Google's and Scaleway's."""
_ODD = [
    ipaddress.ip_network(one)
    for one in (
        *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
]
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def as_address(host: str) -> Address | None:
    """``host`` as an address, if it is one in its usual form; a name otherwise (also ``0x7f000001`` and ``127.1``)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def fault(address: Address, *, private: bool) -> str:
    """Why nothing is fetched from ``address``; empty where it may be. ``private``: those of private networks and of
    this host may be, too. Pure."""
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        # An IPv6-only host reaches IPv4 servers so; what counts is where the packets end (RFC 6052).
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if _within(address, _LINK_LOCAL) or _within(address, _METADATA) or getattr(address, "scope_id", None):
        return LINK_LOCAL
    if _within(address, _PRIVATE):
        return "" if private else PRIVATE
    if _within(address, _ODD) or (address.version == 6 and address not in _GLOBAL_6):
        return ODD
    return ""


def _within(address: Address, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, in the order in which they are to be tried. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def resolved(resolve: Resolve, host: str, port: int, seconds: float) -> list[str]:
    """What ``resolve`` finds. Raises OSError, also after ``seconds``: the C library has no deadline of its own."""
    found: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(resolve(host, port))
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
            found.put(error)

    threading.Thread(target=ask, name="sked-artifact-resolve", daemon=True).start()
    try:
        answer = found.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError(f"no address of {host} within {seconds:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer if isinstance(answer, OSError) else OSError(f"{host} has no address ({answer})")
    if not answer:
        raise OSError(f"{host} has no address")
    return answer
