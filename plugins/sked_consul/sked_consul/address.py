"""Where Consul is and how to prove who asks: the URL first, then the variables that Consul's own tools read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sked_core.plugin import InvalidValue

DEFAULT_PORT = 8500
_EXAMPLE = "such as consul://127.0.0.1:8500 or consul+https://consul.example.com:8501"
_TRUE = ("1", "t", "true")


@dataclass(frozen=True, slots=True)
class Address:
    """One Consul agent, with the credentials for it. The token is in no representation of it."""

    host: str
    port: int = DEFAULT_PORT
    secure: bool = False
    token: str = field(default="", repr=False)
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""
    token_file: str = ""
    """Where ``token`` comes from; it is read again when it changes."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


def parse_address(url: str, environ: Mapping[str, str]) -> Address:
    """The address that ``url`` (``consul://host:port``, ``consul+https://…``, ``consul+http://…``) stands for.

    What the URL says beats the environment: CONSUL_HTTP_ADDR counts only for a URL without a host (``consul://``),
    CONSUL_HTTP_SSL only for the scheme ``consul``. Raises InvalidValue, also for a token file that can't be read.
    """
    parts = _split(url, "the URL of the store")
    secure = {"consul+https": True, "consul+http": False}.get(parts.scheme)
    if not parts.netloc and environ.get("CONSUL_HTTP_ADDR"):
        text = environ["CONSUL_HTTP_ADDR"]
        parts = _split(text if "://" in text else f"tcp://{text}", "CONSUL_HTTP_ADDR")
        if parts.scheme not in ("http", "https", "tcp"):
            raise InvalidValue(f"CONSUL_HTTP_ADDR: {parts.scheme}:// is not supported", hint=_EXAMPLE)
        if secure is None and parts.scheme != "tcp":
            secure = parts.scheme == "https"
    if secure is None:
        secure = environ.get("CONSUL_HTTP_SSL", "").lower() in _TRUE
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or DEFAULT_PORT,
        secure=secure,
        token=_token(environ),
        token_file=environ.get("CONSUL_HTTP_TOKEN_FILE", ""),
        ca_cert=_file(environ, "CONSUL_CACERT"),
        client_cert=_file(environ, "CONSUL_CLIENT_CERT"),
        client_key=_file(environ, "CONSUL_CLIENT_KEY"),
        server_name=environ.get("CONSUL_TLS_SERVER_NAME", ""),
    )


def _split(text: str, what: str) -> SplitResult:
    """The parts of a URL that has nothing but scheme, host and port. Messages don't repeat it: it may hold a secret."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a port that is none
    except ValueError as error:
        raise InvalidValue(f"{what} is not valid: {error}", hint=_EXAMPLE) from None
    if "@" in parts.netloc:
        raise InvalidValue(
            f"{what} holds credentials, which would show in process lists and logs",
            hint="put the token into CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE",
        )
    if parts.scheme != "unix" and (parts.path.strip("/") or parts.query or parts.fragment):
        raise InvalidValue(f"{what} has more than a host and a port", hint=_EXAMPLE)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValue(f"{what} holds characters that can't be in a URL", hint=_EXAMPLE)
    return parts


def _file(environ: Mapping[str, str], variable: str) -> str:
    """The path in ``variable``: a file that is there, or none."""
    path = environ.get(variable, "")
    if path and not Path(path).is_file():
        raise InvalidValue(f"{variable}: there is no file {path}")
    return path


def _token(environ: Mapping[str, str]) -> str:
    """The ACL token; a file beats the plain variable, as it does for Consul's own tools."""
    source, token = "CONSUL_HTTP_TOKEN", environ.get("CONSUL_HTTP_TOKEN", "")
    if path := environ.get("CONSUL_HTTP_TOKEN_FILE", ""):
        return read_token(path)
    return _checked(token, source)


def read_token(path: str) -> str:
    """The token in the file that CONSUL_HTTP_TOKEN_FILE names. Raises InvalidValue."""
    source = "CONSUL_HTTP_TOKEN_FILE"
    try:
        return _checked(Path(path).read_text(), source)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{source}: can't read {path}: {getattr(error, 'strerror', None) or error}") from None


def _checked(token: str, source: str) -> str:
    token = token.strip()
    if not (token.isascii() and token.isprintable() and len(token) <= 1024 and " " not in token):
        raise InvalidValue(f"the token in {source} holds characters that no Consul token has")
    return token
