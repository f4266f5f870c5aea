"""One gRPC channel per member. The only module that knows how gRPC is set up."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sked_core.plugin import InvalidValue
from sked_etcd.address import Address

# gRPC's core reads these once, when it is imported. It would print what it thinks of a lost connection on standard
# error, where the command line's own words belong, and interfere with every fork of the process.
_SETTINGS = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
_ours = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
os.environ.update(_ours)
import grpc  # type: ignore[import-untyped]  # noqa: E402

for _name in _ours:
    del os.environ[_name]  # programs that are started from here don't inherit them

RpcError = grpc.RpcError
Code = grpc.StatusCode
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),  # a write whose answer was lost must not be sent again
    ("grpc.max_receive_message_length", -1),
    # gRPC connects again by itself, with jitter, but up to two minutes apart.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 3000),
    # Finds a peer that is paused or cut off while calls are open. etcd ends connections that ask more than every 5 s.
    ("grpc.keepalive_time_ms", 7000),
    ("grpc.keepalive_timeout_ms", 4000),
    ("grpc.http2.ping_timeout_ms", 4000),  # the one that newer versions of gRPC go by; a minute otherwise
    ("grpc.http2.max_pings_without_data", 0),
    # A stream is read by the thread that iterates over it. gRPC's own two threads wake 15 times a second.
    ("SingleThreadedUnaryStream", 1),
)


class Member:
    """One etcd server. Its channel connects when first used, and again whenever the connection has broken."""

    def __init__(self, target: str, credentials: Any) -> None:
        self.target = target
        name = f"dns:///{target}"
        if credentials is None:
            self.channel = grpc.insecure_channel(name, options=_OPTIONS)
        else:
            self.channel = grpc.secure_channel(name, credentials, options=_OPTIONS)
        self._calls: dict[str, Callable[..., Any]] = {}

    def call(self, method: str) -> Any:
        """The callable for a method with one request and one answer, both as bytes."""
        if method not in self._calls:
            self._calls[method] = self.channel.unary_unary(method)
        return self._calls[method]


def credentials_of(address: Address) -> Any:
    """What gRPC needs for TLS, or None without it. Raises InvalidValue for files that can't be read."""
    if not address.secure:
        return None
    try:
        roots = Path(address.ca_cert).read_bytes() if address.ca_cert else _system_roots()
        key = Path(address.client_key).read_bytes() if address.client_key else None
        chain = Path(address.client_cert).read_bytes() if address.client_cert else None
    except OSError as error:
        raise InvalidValue(f"can't read {error.filename}: {error.strerror}") from None
    return grpc.ssl_channel_credentials(roots, key, chain)


def _system_roots() -> bytes | None:
    """The authorities that this machine trusts, as etcdctl takes them; None (gRPC's own list) if it names none."""
    ders = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in ders).encode() or None
