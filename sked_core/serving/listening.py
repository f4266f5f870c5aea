"""Where a server listens: addresses, what they need to be safe, TLS, and Unix sockets for the owner alone."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sked_core.errors import InvalidValue
from sked_core.serving.tokens import Role, Tokens

BACKLOG = 256
LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes (sun_path holds 108 on Linux, 104 elsewhere)."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Listen:
    """What a server was told of where to listen and whom to let in. ``address``: ``HOST:PORT``; port 0 takes a free
    one. ``hosts``: further names that clients may call it by."""

    address: str
    tokens: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    hosts: tuple[str, ...] = ()


@dataclass(slots=True)
class Listener:
    """A socket that is open for callers, and the rules for them. ``tokens`` None: everybody who gets here is let in as
    ``anonymous``. ``names``: what a Host header may say (None: anything; no browser gets to a Unix socket)."""

    socket: socket.socket
    url: str
    anonymous: Role
    tokens: Tokens | None = None
    tls: ssl.SSLContext | None = None
    names: frozenset[str] | None = None
    any_ip: bool = False
    _certificate: tuple[Path, Path] | None = None
    _stamp: tuple[int, ...] = field(default=())

    def close(self) -> None:
        """Take no further callers. Idempotent; a Unix socket's file is left for the next one to replace."""
        self.socket.close()

    def renew(self) -> None:
        """Take up the certificate if its files have changed; connections made from now on see it. Raises OSError
        (ssl.SSLError too) where they can't be read, and keeps the former one then."""
        if self.tls and self._certificate and (stamp := _stamp(self._certificate)) != self._stamp:
            self.tls.load_cert_chain(*self._certificate, password=_no_password)
            self._stamp = stamp


def open_tcp(listen: Listen, *, anonymous: Role = Role.ADMIN, known_as: str = "") -> Listener:
    """Listen on a TCP address. ``anonymous``: what callers without a token may do where none is asked for.
    ``known_as``: where others reach this machine, for the URL where that is every address of it.

    Raises InvalidValue where that would be unsafe, with what to give, or where it can't be; InvalidManifest for
    mistakes in the file of tokens.
    """
    resolved, tokens, tls = checked(listen)
    host = parse_address(listen.address)[0]
    certificate = (listen.tls_cert, listen.tls_key) if listen.tls_cert and listen.tls_key else None
    opened = _bound(resolved, listen.address)
    real = opened.getsockname()
    wildcard = ipaddress.ip_address(real[0].partition("%")[0]).is_unspecified
    names = {*LOOPBACK_NAMES, host.lower(), real[0].lower(), *(name.lower() for name in listen.hosts)}
    own = {socket.gethostname().lower(), known_as.lower()} if wildcard else set()
    shown = known_as or socket.gethostname() if wildcard else host
    return Listener(
        socket=opened,
        url=f"{'https' if tls else 'http'}://{_bracketed(shown)}:{real[1]}",
        anonymous=anonymous,
        tokens=tokens,
        tls=tls,
        names=frozenset(names | own),
        any_ip=wildcard,
        _certificate=certificate,
        _stamp=_stamp(certificate) if certificate else (),
    )


def checked(listen: Listen) -> tuple[tuple[int, tuple[str, int]], Tokens | None, ssl.SSLContext | None]:
    """All that ``open_tcp`` looks at before it takes the address: the family and the address in numbers, tokens, TLS.
    Raises as that does."""
    resolved = _resolved(*parse_address(listen.address), listen.address)
    _refuse_unsafe(listen, resolved)
    tokens = Tokens(listen.tokens) if listen.tokens else None
    return resolved, tokens, _tls(listen.tls_cert, listen.tls_key) if listen.tls_cert and listen.tls_key else None


def open_unix(path: Path) -> Listener:
    """Listen on a Unix socket that only this user can open, from its first moment on; whoever does may do everything.

    The folder is made, for this user alone, if it is not there; a socket that stands there already is replaced. Raises
    InvalidValue, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.geteuid():
        raise InvalidValue(f"{path.parent} belongs to another user (uid {status.st_uid}): no socket is opened there")
    path.parent.chmod(0o700)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
    draft = path.with_name(f".{secrets.token_hex(4)}")
    try:
        with short_path(draft) as name:
            opened.bind(name)
        draft.chmod(0o600)
        opened.listen(BACKLOG)
        draft.replace(path)
    except OSError:
        opened.close()
        with suppress(OSError):
            draft.unlink()
        raise
    opened.setblocking(False)
    return Listener(socket=opened, url=f"unix:{path}", anonymous=Role.ADMIN)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of ``path`` that fits into a socket's address, to be used within the block. Raises InvalidValue where
    the path is too long and this system has no other way to it."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    if not sys.platform.startswith("linux"):
        raise InvalidValue(f"{path} is too long for a socket: {LONGEST_PATH} bytes at most")
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[V6]:PORT``. Raises InvalidValue."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InvalidValue(f'expected HOST:PORT, got "{address[:80]}"', hint="such as 127.0.0.1:8642")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidValue(f'"{address[:80]}": put an IPv6 address in brackets, such as [::1]:8642')
    return host or "0.0.0.0", int(port)  # noqa: S104  refused below unless tokens and TLS are given


def is_loopback(address: str) -> bool:
    """Whether an IP address is reached from this machine alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _refuse_unsafe(listen: Listen, resolved: tuple[int, tuple[str, int]]) -> None:
    """Another machine may only get here with a token and over TLS. Raises InvalidValue with what to give."""
    if (listen.tls_cert is None) != (listen.tls_key is None):
        raise InvalidValue("TLS takes a certificate and its key", hint="give: --tls-cert FILE --tls-key FILE")
    if is_loopback(resolved[1][0]):
        return
    lacks = [] if listen.tokens else ["--tokens FILE"]
    lacks += [] if listen.tls_cert else ["--tls-cert FILE", "--tls-key FILE"]
    if lacks:
        what = " and ".join((["a token"] if not listen.tokens else []) + (["TLS"] if not listen.tls_cert else []))
        raise InvalidValue(
            f"won't listen on {listen.address}, where other machines get to, without {what}",
            hint=f"give as well:  {' '.join(lacks)}\n"
            f"or listen here: --listen 127.0.0.1:{parse_address(listen.address)[1]}",
        )


def _resolved(host: str, port: int, address: str) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidValue(f"can't listen on {address}: {error.strerror}") from None
    family, _, _, _, place = found[0]
    return family, place  # type: ignore[return-value]


def _bound(resolved: tuple[int, tuple[str, int]], address: str) -> socket.socket:
    family, place = resolved
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio spares those alone Nagle's wait
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _find_out_who_is_gone(opened)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(place)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise InvalidValue(
            f"can't listen on {address}: {error.strerror}", hint="another port: --listen HOST:PORT (0 takes a free one)"
        ) from None
    return opened


def _find_out_who_is_gone(opened: socket.socket) -> None:
    """Connections inherit it: a peer that vanished without a word is noticed within half a minute, read or written."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if number := getattr(socket, name, 0):
            opened.setsockopt(socket.IPPROTO_TCP, number, value)


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise InvalidValue(
            f"{certificate} and {key} are no certificate and its key: {error.reason or error}",
            hint="expected two files in PEM: the certificate (with those that signed it), and its key without password",
        ) from None
    except OSError as error:
        where = next((path for path in (certificate, key) if not os.access(path, os.R_OK)), certificate)
        raise InvalidValue(f"can't read {where}: {error.strerror}") from None
    return context


def _no_password() -> str:
    """Instead of a question on the terminal."""
    return ""


def _stamp(paths: tuple[Path, Path]) -> tuple[int, ...]:
    found = [path.stat() for path in paths]
    return tuple(number for status in found for number in (status.st_ino, status.st_mtime_ns, status.st_size))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
