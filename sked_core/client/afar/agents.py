"""The way to the agent of a host: by its socket on this machine, else by the address that it publishes."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from msgspec import UnsetType

from sked_core.client.outcomes import FAILED, Ended
from sked_core.errors import Conflict, Denied, InvalidValue, NotFound, SkedError, Unavailable
from sked_core.interfaces.store import entry_at
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Host

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from sked_core.interfaces.store import Store

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 45.0
"""An agent that follows says something every ten seconds."""
LISTEN_HINT = (
    "start its agent so that others get there: --listen ADDRESS:PORT --tokens FILE --tls-cert FILE --tls-key FILE"
)


class AgentAway(Unavailable):
    """The agent can't be reached, or not now: asking again may help."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One host's agent, and the URL by which it is asked."""

    host: str
    url: str


def agent_of(store: Store, host: str) -> Agent:
    """The agent of ``host``. Raises NotFound, AgentAway with what to do where it can't be asked from here, Unavailable
    for the store."""
    entry = entry_at(store, keys.host(host))
    if entry is None:
        raise NotFound(f"no host {host}", hint="`sked hosts` lists the hosts")
    described = decode(entry.value, Host)
    if url := url_from_here(described):
        return Agent(host, url)
    sockets, here, _ = _ways(described)
    if here:
        raise Denied(f"{here[0]} is for the user alone that runs the agent of {host}", hint="try: sudo -E sked …")
    if sockets:
        raise AgentAway(
            f"the agent of {host} offers logs and commands on its own machine alone ({sockets[0]})",
            hint=f"on {host} the same command works, or\n{LISTEN_HINT}",
        )
    raise AgentAway(
        f"the agent of {host} offers no logs and commands",
        hint=f"is it running, and as new as this sked? its log says more (sked hosts shows {host})",
    )


def url_from_here(host: Host) -> str:
    """Where this process may ask the agent of ``host``; empty if nowhere."""
    _, here, others = _ways(host)
    return next(iter([url for url in here if os.access(url.removeprefix("unix:"), os.W_OK)] + others), "")


def _ways(host: Host) -> tuple[list[str], list[str], list[str]]:
    """The URLs that it publishes: Unix sockets, those of them that are on this machine, and addresses."""
    urls = [] if isinstance(host.serves, UnsetType) else host.serves
    sockets = [url for url in urls if url.startswith("unix:")]
    here = [url for url in sockets if _is_socket(Path(url.removeprefix("unix:")))]
    return sockets, here, [url for url in urls if url.startswith(("https:", "http:"))]


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        return True  # in a folder of somebody else's
    except OSError:
        return False


@contextmanager
def asked(agent: Agent, path: str, query: list[tuple[str, str]], *, accept: str) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, open for the block. Raises AgentAway where there is none, else what the agent answers."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(_connected(agent))
            connection.sock.settimeout(SILENCE_SECONDS)
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request("GET", target, headers={"Accept": accept, **_headers(agent)})
            response = stack.enter_context(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise _away(agent, error) from error
        if response.status != 200:
            raise failure(agent, response.status, response.read(65536))
        yield response


@contextmanager
def commanded(agent: Agent, path: str) -> Iterator[ClientConnection]:
    """A websocket to the agent, open for the block. Raises AgentAway where it can't be reached, else what the agent
    answers."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    parts = urlsplit(agent.url)
    secure = parts.scheme == "https"
    where = "localhost" if agent.url.startswith("unix:") else parts.netloc
    with ExitStack() as stack:
        try:
            plain_socket = stack.enter_context(_socket(agent))
            websocket = stack.enter_context(
                connect(
                    f"{'wss' if secure else 'ws'}://{where}{path}",
                    sock=plain_socket,
                    ssl=trust() if secure else None,
                    server_hostname=parts.hostname if secure else None,
                    additional_headers=_headers(agent),
                    compression=None,
                    open_timeout=CONNECT_SECONDS * 4,
                    close_timeout=1.0,
                    ping_interval=None,
                    max_size=None,
                    max_queue=4,
                )
            )
        except InvalidStatus as error:
            raise failure(agent, error.response.status_code, bytes(error.response.body or b"")) from None
        except (OSError, InvalidHandshake, EOFError) as error:
            raise _away(agent, error) from error
        yield websocket


def failure(agent: Agent, status: int, body: bytes) -> SkedError:
    """What the agent answered instead, as an error."""
    try:
        problem: Mapping[str, Any] = json.loads(body)
        detail, hint = str(problem["detail"]), str(problem.get("hint", ""))
    except (ValueError, LookupError, TypeError):
        detail, hint = f"HTTP status {status}", ""
    text = f"the agent of {agent.host} says: {detail}"
    kinds: dict[int, type[SkedError]] = {
        400: InvalidValue,
        401: Denied,
        403: Denied,
        404: NotFound,
        409: Conflict,
        421: AgentAway,
        429: AgentAway,
        503: AgentAway,
    }
    kind = kinds.get(status)
    return kind(text, hint=hint) if kind else Ended(text, code=FAILED, hint=hint)


@contextmanager
def _connected(agent: Agent) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(agent.url)
    where = "localhost" if agent.url.startswith("unix:") else parts.netloc
    with _socket(agent) as plain_socket, ExitStack() as stack:
        connection = http.client.HTTPConnection(where)
        connection.sock = plain_socket
        if parts.scheme == "https":
            connection.sock = stack.enter_context(trust().wrap_socket(plain_socket, server_hostname=parts.hostname))
        yield connection


def _socket(agent: Agent) -> socket.socket:
    if agent.url.startswith("unix:"):
        from sked_core.serving.listening import short_path

        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(CONNECT_SECONDS)
        try:
            with short_path(Path(agent.url.removeprefix("unix:"))) as name:
                opened.connect(name)
        except BaseException:
            opened.close()
            raise
        return opened
    parts = urlsplit(agent.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    opened = socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def trust() -> ssl.SSLContext:
    """Whose certificates agents may show: of those that SKED_API_CACERT names signed, else of those the system knows.
    Raises InvalidValue."""
    authority = os.environ.get("SKED_API_CACERT")
    try:
        return ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        raise InvalidValue(f"SKED_API_CACERT={authority}: {error.strerror or error}") from None


def _headers(agent: Agent) -> dict[str, str]:
    token = _token() if not agent.url.startswith("unix:") else ""
    return {"Sked-Host": agent.host} | ({"Authorization": f"Bearer {token}"} if token else {})


def _token() -> str:
    if token := os.environ.get("SKED_API_TOKEN"):
        return token.strip()
    if path := os.environ.get("SKED_API_TOKEN_FILE"):
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidValue(f"SKED_API_TOKEN_FILE={path}: {getattr(error, 'strerror', error)}") from None
    return ""


def _away(agent: Agent, error: BaseException) -> SkedError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return Denied(
            f"the agent of {agent.host} at {agent.url} shows a certificate that is not trusted here: "
            f"{error.verify_message}",
            hint="SKED_API_CACERT=FILE names who signed it",
        )
    if isinstance(error, TimeoutError):
        reason = "no answer"
    return AgentAway(
        f"cannot reach the agent of {agent.host} at {agent.url} ({reason})",
        hint=f"is it running, and may this machine get there? (sked describe host/{agent.host})",
    )
