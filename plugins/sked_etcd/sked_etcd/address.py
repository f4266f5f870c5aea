"""Where etcd is and how to prove who asks: the URL first, then the variables that etcdctl reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sked_core.plugin import InvalidValue

DEFAULT_PORT = 2379
USER_FILE = "SKED_ETCD_USER_FILE"
_EXAMPLE = "such as etcd://127.0.0.1:2379 or etcd+https://a.example.com:2379,b.example.com:2379"
_SECURE = {"etcd+https": True, "https": True, "etcd+http": False, "http": False}


@dataclass(frozen=True, slots=True)
class Address:
    """The members of one etcd cluster as ``host:port``, with the credentials for them. The password is in no
    representation of it."""

    members: tuple[str, ...]
    secure: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    user_file: str = ""
    """Where user and password come from; it is read again when it changes."""

    def __str__(self) -> str:
        return ",".join(self.members)


def parse_address(url: str, environ: Mapping[str, str]) -> Address:
    """The address that ``url`` (``etcd://host:port,host:port``, ``etcd+https://…``, ``etcd+http://…``) stands for.

    ETCDCTL_ENDPOINTS counts only for a URL without a host (``etcd://``). As with etcdctl, TLS is used where the
    scheme says so, or where it does not say and ETCDCTL_CACERT or ETCDCTL_CERT is set. Raises InvalidValue.
    """
    what = "the URL of the store"
    scheme, _, rest = url.partition("://")
    texts, said = rest.split(","), {scheme}
    if not rest.strip("/"):
        what = "ETCDCTL_ENDPOINTS"
        texts = [text.strip() for text in environ.get(what, "").split(",") if text.strip()] or ["127.0.0.1"]
        said |= {text.partition("://")[0] for text in texts if "://" in text}
    members = tuple(dict.fromkeys(_member(text, what) for text in texts))
    ca_cert, client_cert, client_key = (_file(environ, f"ETCDCTL_{name}") for name in ("CACERT", "CERT", "KEY"))
    if bool(client_cert) != bool(client_key):
        raise InvalidValue("ETCDCTL_CERT and ETCDCTL_KEY go together: only one of them is set")
    answers = {_SECURE[each] for each in said if each in _SECURE}
    if len(answers) > 1 or (said - set(_SECURE) - {"etcd"}):
        raise InvalidValue(f"{what} mixes schemes, or has one that etcd does not speak", hint=_EXAMPLE)
    secure = answers.pop() if answers else bool(ca_cert or client_cert)
    user_file = environ.get(USER_FILE, "")
    user, password = read_user(user_file) if user_file else _user(environ)
    return Address(members, secure, user, password, ca_cert, client_cert, client_key, user_file)


def read_user(path: str) -> tuple[str, str]:
    """User and password in the file that USER_FILE names: one line, ``user:password``. Raises InvalidValue."""
    try:
        user, _, password = Path(path).read_text().strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{USER_FILE}: can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not user or not password or not f"{user}{password}".isprintable():
        raise InvalidValue(f"{USER_FILE}: {path} is not one line of user:password")
    return user, password


def file_stamp(*paths: str) -> tuple[int, ...]:
    """Changes when one of the files does; a file that is not there counts as nothing."""
    found: list[int] = []
    for path in filter(None, paths):
        try:
            status = Path(path).stat()
        except OSError:
            continue
        found += [status.st_ino, status.st_mtime_ns, status.st_size]
    return tuple(found)


def _member(text: str, what: str) -> str:
    """``host:port`` of a URL with nothing else in it. Messages don't repeat it: it may hold a secret."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT  # raises for a port that is none
    except ValueError as error:
        raise InvalidValue(f"{what} is not valid: {error}", hint=_EXAMPLE) from None
    _refuse_more(parts, text, what)
    if not host:
        raise InvalidValue(f"{what} names no host", hint=_EXAMPLE)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse_more(parts: SplitResult, text: str, what: str) -> None:
    if "@" in parts.netloc:
        raise InvalidValue(
            f"{what} holds credentials, which would show in process lists and logs",
            hint="put them into ETCDCTL_USER (user:password, or the user alone and ETCDCTL_PASSWORD)",
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise InvalidValue(f"{what} has more than hosts and ports", hint=_EXAMPLE)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValue(f"{what} holds characters that can't be in a URL", hint=_EXAMPLE)


def _file(environ: Mapping[str, str], variable: str) -> str:
    """The path in ``variable``: a file that is there and holds a certificate or key, or none."""
    path = environ.get(variable, "")
    if path and not Path(path).is_file():
        raise InvalidValue(f"{variable}: there is no file {path}")
    if path and b"-----BEGIN" not in Path(path).read_bytes():
        raise InvalidValue(f"{variable}: {path} holds no certificate or key in PEM form")
    return path


def _user(environ: Mapping[str, str]) -> tuple[str, str]:
    """User and password as etcdctl takes them: ``user:password``, or both apart."""
    user, password = environ.get("ETCDCTL_USER", ""), environ.get("ETCDCTL_PASSWORD", "")
    if not password:
        user, _, password = user.partition(":")
    if user and not password:
        raise InvalidValue(
            "ETCDCTL_USER gives no password",
            hint="set it to user:password, or put the password into ETCDCTL_PASSWORD",
        )
    if password and not user:
        raise InvalidValue("ETCDCTL_PASSWORD is set, but ETCDCTL_USER names no user")
    return user, password
