"""The one adapter over python-consul2.

What it mends (0.1.5): the environment beat arguments, calls had no deadline, redirects were followed with the body,
errors came as exceptions of two libraries, and nothing told an error page from an answer.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import consul.base  # type: ignore[import-untyped]
import msgspec
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as DeadlineError

from sked_consul.address import Address, read_token
from sked_core.plugin import Denied, InvalidValue, Unavailable

T = TypeVar("T")
Params = Sequence[tuple[str, object]]
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""How long a call that does not wait may take. Consul itself gives up on its leader after about 7 s."""
_CHUNK_BYTES = 256 * 1024
_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)  # the first also tells where unread data came before
_START_ONE = "start one:       consul agent -dev\nor try without:  sked run combined"
_NEEDED = {
    "/v1/kv/": 'key_prefix "" { policy = "write" }',
    "/v1/txn": 'key_prefix "" { policy = "write" } and session_prefix "" { policy = "write" }',
    "/v1/session/": 'session_prefix "" { policy = "write" }',
    "/v1/agent/": 'service_prefix "" { policy = "write" }',
    "/v1/health/": 'service_prefix "" { policy = "read" } and node_prefix "" { policy = "read" }',
    "/v1/catalog/": 'service_prefix "" { policy = "read" } and node_prefix "" { policy = "read" }',
}


class NotConnected(Exception):
    """A call that was to keep to open connections found none."""


class Transport(consul.base.HTTPClient):  # type: ignore[misc]
    """HTTP to one Consul agent over a few kept connections, every call within a deadline.

    Only a real answer reaches a call's callback (200, or a 404 or 409 that means something); all else raises:
    Unavailable for whatever may pass, InvalidValue for what Consul won't take, Denied for a missing permission.
    """

    def __init__(self, address: Address, connections: int) -> None:
        super().__init__(host=address.host, port=address.port)
        self.base_uri = ""  # urllib3's pool knows the host; it is given paths
        self.address = address
        self.epoch = 0
        """Grows with every failure, and with every connection made while no other was open: the server may be
        another one than before."""
        self._closed = False
        self._thread = threading.local()  # .bound: its calls open no connection; .epoch: when its last one was sent
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[urllib3.connection.HTTPConnection] = weakref.WeakSet()
        self._token = address.token
        self._token_stamp: tuple[int, ...] = ()
        self._pool = self._new_pool(connections)

    def _new_pool(self, connections: int) -> urllib3.HTTPConnectionPool:
        address = self.address
        pool: urllib3.HTTPConnectionPool
        if address.secure:
            pool = urllib3.HTTPSConnectionPool(
                address.host,
                address.port,
                maxsize=connections,
                block=True,
                cert_reqs="CERT_REQUIRED",
                ca_certs=address.ca_cert or None,
                cert_file=address.client_cert or None,
                key_file=address.client_key or None,
                server_hostname=address.server_name or None,
                assert_hostname=address.server_name or None,
            )
        else:
            pool = urllib3.HTTPConnectionPool(address.host, address.port, maxsize=connections, block=True)
        make = pool.ConnectionCls

        def tracked(*args: Any, **kwargs: Any) -> Any:
            connection = make(*args, **kwargs)
            connect = connection.connect

            def connect_unless_closed() -> None:
                if getattr(self._thread, "bound", False):
                    raise NotConnected
                connect()
                with self._lock:
                    if not any(_is_open(other) for other in self._connections if other is not connection):
                        self.epoch += 1
                    self._thread.epoch = self.epoch
                    closed = self._closed
                if closed:  # after close() had looked for what to end
                    connection.close()
                    raise ConnectionAbortedError("the connection to Consul is closed")

            connection.connect = connect_unless_closed  # type: ignore[method-assign]
            with self._lock:
                self._connections.add(connection)  # type: ignore[arg-type]
            return connection

        pool.ConnectionCls = tracked  # type: ignore[assignment]
        return pool

    def get(self, callback: Callable[[Any], T], path: str, params: Any = None, headers: Any = None) -> T:
        return self._call("GET", callback, path, params, headers, None)

    def put(
        self, callback: Callable[[Any], T], path: str, params: Any = None, data: Any = None, headers: Any = None
    ) -> T:
        return self._call("PUT", callback, path, params, headers, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = None, headers: Any = None) -> NoReturn:
        raise InvalidValue("Sked deletes in transactions only")

    def post(self, callback: Any, path: str, params: Any = None, headers: Any = None, data: Any = None) -> NoReturn:
        raise InvalidValue("no endpoint that Sked uses takes POST")

    @property
    def sent_in_epoch(self) -> int:
        """The epoch in which this thread's last call was sent, which answers belong to."""
        return getattr(self._thread, "epoch", 0)

    @contextmanager
    def keeping_to_open_connections(self) -> Iterator[None]:
        """In the body, a call of this thread that would have to open a connection raises NotConnected."""
        self._thread.bound = True
        try:
            yield
        finally:
            self._thread.bound = False

    def close(self) -> None:
        """End every connection; calls in progress raise Unavailable at once. Idempotent."""
        with self._lock:
            self._closed = True
            open_now = list(self._connections)
        for connection in open_now:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        self._pool.close()

    @property
    def token(self) -> str:
        """The token to send now: the file's, once that has changed; what can't be read leaves the one before."""
        if self.address.token_file and (stamp := file_stamp(self.address.token_file)) != self._token_stamp:
            with suppress(InvalidValue):
                token = read_token(self.address.token_file)
                if token:  # a file that is being written is empty at first
                    self._token, self._token_stamp = token, stamp
        return self._token

    def _call(
        self, method: str, callback: Callable[[Any], T], path: str, params: Any, headers: Any, data: str | bytes | None
    ) -> T:
        if self._closed:
            raise Unavailable("the connection to Consul is closed")
        seconds = _answer_seconds(params)
        self._thread.epoch = self.epoch
        try:
            for _ in range(2):
                token = self.token
                sent = {**(headers or {}), **({"X-Consul-Token": token} if token else {})}
                status, answer_headers, body = self._exchange(method, self.uri(path, params), sent, data, seconds)
                if status not in (401, 403) or token == self.token:
                    break  # else there is another token by now, and nothing was carried out with the former one
        except (HTTPError, OSError) as error:
            self.epoch += 1
            raise Unavailable(
                f"cannot reach Consul at {self.address} ({_reason(error, seconds)})", hint=_START_ONE
            ) from None
        if status not in (200, 404, 409):
            self._refuse(method, status, path, body)
        try:
            text = body.decode("utf-8", "replace")
            return callback(consul.base.Response(status, answer_headers, text, body))
        except consul.base.NotFound:
            raise
        except (consul.base.ConsulException, msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError):
            self._nonsense(path, body)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], data: str | bytes | None, seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + seconds
        response = self._pool.urlopen(
            method,
            target,
            body=data,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
            pool_timeout=int(seconds),
            preload_content=False,
            decode_content=False,
        )
        chunks = []
        try:
            while chunk := response.read1(_CHUNK_BYTES):  # read() would wait for all of it, however slow it comes
                chunks.append(chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError
        except BaseException:
            response.close()  # what is left in the connection must not be read as the next answer
            raise
        finally:
            response.release_conn()  # into the pool, closed or not: it makes no other in its place
        return response.status, response.headers, b"".join(chunks)

    def _refuse(self, method: str, status: int, path: str, body: bytes) -> NoReturn:
        self.epoch += 1
        said = self.quoted(body)
        if status in (401, 403):
            raise self.denied(path, said, reading=method == "GET")
        if status in (400, 413):
            raise InvalidValue(f"Consul at {self.address} refused {path}: {said}")
        if 300 <= status < 400:
            raise Unavailable(
                f"Consul at {self.address} sent a redirect for {path}, and none is followed",
                hint="give the address of the Consul agent itself, without a proxy before it",
            )
        raise Unavailable(f"Consul at {self.address} answered {status}: {said}", hint="see the log of the Consul agent")

    def denied(self, path: str, said: str, *, reading: bool = False) -> Denied:
        """What to raise where the token is not enough for ``path``, is not known, or was not given."""
        origin = "the token comes from CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN"
        if "ACL not found" in said:
            return Denied(f"Consul at {self.address} does not know the token (ACL not found)", hint=origin)
        needs = next((rule for start, rule in _NEEDED.items() if path.startswith(start)), "")
        if reading:
            needs = needs.replace('"write"', '"read"')
        token = "the token lacks" if self.token else "no token was given, and the anonymous one lacks"
        return Denied(
            f"Consul at {self.address} denied {path}: {token} a permission ({said})",
            hint=f"its policy needs at least {needs}, or the part of it that the README of sked-consul lists\n{origin}",
        )

    def _nonsense(self, path: str, body: bytes) -> NoReturn:
        self.epoch += 1
        raise Unavailable(
            f"what answers at {self.address} for {path} is no Consul, or a broken one: {self.quoted(body)}",
            hint="check the address of the Consul agent",
        ) from None

    def quoted(self, body: bytes) -> str:
        """The beginning of an answer, fit to be shown: one line, printable, without our token."""
        text = body[:2000].decode("utf-8", "replace")
        for token in filter(None, (self.address.token, self._token)):
            text = text.replace(token, "<token>")
        line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
        return line[:200] or "an empty answer"


class Client(consul.base.Consul):  # type: ignore[misc]
    """python-consul2's endpoints over our transport, and ``fetch`` and ``send`` for what they get wrong."""

    def __init__(self, address: Address, *, connections: int) -> None:
        # Not super().__init__: that reads CONSUL_HTTP_ADDR and its like, and lets them win over arguments.
        self.http = Transport(address, connections)
        self.token, self.dc = None, None
        self.agent = self.Agent(self)
        self.session = self.Session(self)

    def fetch(self, path: str, kind: type[T], params: Params = ()) -> tuple[int, T | None]:
        """Index and value of a GET; None for a 404 that Consul itself sent (it carries an index)."""

        def parse(answer: Any) -> tuple[int, T | None]:
            index = int(answer.headers["X-Consul-Index"])
            if answer.code == 404:
                return index, None
            return index, msgspec.json.decode(answer.content, type=kind)

        return self.http.get(parse, path, params)

    def send(self, path: str, value: object, params: Params = ()) -> None:
        """A PUT of ``value`` as JSON whose only answer is that it worked. Raises Unavailable if it did not."""

        def accept(answer: Any) -> None:
            if answer.code != 200:
                raise ValueError(answer.code)

        self.http.put(accept, path, params, json.dumps(value))


def file_stamp(path: str) -> tuple[int, ...]:
    """Changes when the file does; empty where there is none."""
    try:
        status = Path(path).stat() if path else None
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else ()


def blocking(index: int, seconds: float) -> Params:
    """Parameters of a blocking query from ``index`` on; 0 or no time left: answer at once."""
    return [("index", index), ("wait", f"{max(1, int(seconds * 1000))}ms")] if index > 0 and seconds > 0 else []


def _is_open(connection: urllib3.connection.HTTPConnection) -> bool:
    """Whether the other end still holds the connection, as far as this machine has been told."""
    held = connection.sock
    if held is None:
        return False
    poll = select.poll()
    try:
        poll.register(held, _HUNG_UP)
    except ValueError:  # closed meanwhile
        return False
    return not poll.poll(0)


def _answer_seconds(params: Params | None) -> float:
    """The deadline of a call. Consul stretches a wait by up to a sixteenth, and needs time to answer (C1)."""
    wait = str(dict(params or ()).get("wait", ""))
    return int(wait.removesuffix("ms")) / 1000 * 17 / 16 + 5 if wait else ANSWER_SECONDS


def _reason(error: BaseException, seconds: float) -> str:
    """Why a call failed, in the fewest words: the system's own where there are any."""
    if isinstance(error, SSLError):
        return f"TLS: {error}"
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, DeadlineError | TimeoutError) and not isinstance(error, NewConnectionError):
        return f"no answer within {seconds:g} s"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__ or next((a for a in cause.args if isinstance(a, Exception)), None)
    return "the connection broke" if not str(error) else str(error)[:200]
