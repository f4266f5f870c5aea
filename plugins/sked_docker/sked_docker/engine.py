"""The engine's HTTP API with a deadline on every call.

The ``docker`` package brings the way there: sockets, TLS, ssh, contexts, the API version, registry logins. Its
calls are not used: most take no deadline of their own, and its lists inspect every container.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sked_core.plugin import Clock, ExecutorError

if TYPE_CHECKING:
    from docker import APIClient
    from requests import Response

USUAL_SOCKET = "/var/run/docker.sock"
CONNECT_SECONDS = 5.0
CALL_SECONDS = 20
PULL_SECONDS = 1800.0
PULL_SILENCE_SECONDS = 120.0
EVENTS_SILENCE_SECONDS = 60.0
SETTLE_SECONDS = 30.0
"""For so long after the engine was out of reach, a container that it doesn't list isn't proven to be gone."""
CONNECTIONS = 32
OUTPUT_BYTES = 1024 * 1024
"""Most that is read of a container's output."""

_HINT = "is it running, and may this user reach it? try: docker version (DOCKER_HOST and DOCKER_CONTEXT are honoured)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said: the HTTP status and the decoded body."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """The engine's words about a failure, on one line."""
        text = self.body.get("message", "") if isinstance(self.body, dict) else str(self.body or "")
        return one_line(text) or f"HTTP status {self.status}"


class Engine:
    """A Docker engine, connected to at the first call. Any number of threads may use one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._lost_at: float | None = None
        self._pulls: dict[str, threading.Lock] = {}
        self._stream: Any = None
        self._closed = False

    def call(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        query: Mapping[str, str] | None = None,
        body: object = None,
        whole: bool = False,
    ) -> Answer:
        """The answer to one request, whatever its status. Raises ExecutorError if none came within ``deadline``
        seconds: then it is unknown whether the engine did, or still will do, what was asked.

        ``whole``: the request is about the engine as a whole, so that no answer means an engine out of reach. Other
        requests may hang for one container or one image while the engine serves all others.
        """
        with self._reaching(deadline, whole=whole) as client:
            response = client.request(
                method, self._url(client, path), params=query, json=body, timeout=(CONNECT_SECONDS, deadline)
            )
            return Answer(response.status_code, _decoded(response))

    def list(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Every container, dead or alive, that carries all of ``labels``. Raises ExecutorError."""
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        query = {"all": "1", "filters": filters}
        answer = self.call("GET", "/containers/json", query=query, deadline=CALL_SECONDS, whole=True)
        if answer.status != 200:
            raise ExecutorError(f"the Docker engine can't list its containers: {answer.message}")
        rows: list[dict[str, Any]] = answer.body
        return rows

    def find(self, name_or_id: str) -> dict[str, Any] | None:
        """A container as inspect describes it, or None if there is none. Raises ExecutorError."""
        answer = self.call("GET", f"/containers/{name_or_id}/json", deadline=CALL_SECONDS)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ExecutorError(f"the Docker engine can't describe {name_or_id}: {answer.message}")
        found: dict[str, Any] = answer.body
        return found

    def output(self, container_id: str, lines: int) -> bytes:
        """The last ``lines`` lines of a container, as the engine sends them; nothing if it keeps none. Raises
        ExecutorError."""
        query = {"stdout": "1", "stderr": "1", "tail": str(lines)}
        with (
            self._reaching(CALL_SECONDS) as client,
            client.get(
                self._url(client, f"/containers/{container_id}/logs"),
                params=query,
                stream=True,
                timeout=(CONNECT_SECONDS, CALL_SECONDS),
            ) as response,
        ):
            if response.status_code in (404, 409, 501):  # it is gone, or its log driver can't be read from
                return b""
            if response.status_code != 200:
                raise ExecutorError(
                    f"the Docker engine can't read the output of {container_id[:12]}: {words_of(response)}"
                )
            raw = bytearray()
            for chunk in response.iter_content(64 * 1024):
                raw += chunk
                if len(raw) >= OUTPUT_BYTES:
                    break
            return bytes(raw)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Response]:
        """An answer that comes bit by bit, for as long as it takes once it has begun; closed with the block. Raises
        ExecutorError, also for what the block meets on its way to the engine."""
        with self._reaching(CALL_SECONDS) as client:
            response = client.request(
                method,
                self._url(client, path),
                params=query,
                json=body,
                headers=headers,
                stream=True,
                timeout=(CONNECT_SECONDS, CALL_SECONDS),
            )
            try:
                if response.status_code < 300:
                    socket_of(response).settimeout(None)
                yield response
            finally:
                response.close()

    def shares_our_files(self) -> bool:
        """Whether it is reached over a socket of this machine, so that a path means to it what it means here. Raises
        ExecutorError."""
        from docker.transport import UnixHTTPAdapter

        with self._reaching(CALL_SECONDS) as client:
            return isinstance(getattr(client, "_custom_adapter", None), UnixHTTPAdapter)

    def peer(self) -> int:
        """The process that listens on the engine's socket, or opened it for the engine; 0 for one that is not known."""
        from docker.transport import UnixHTTPAdapter

        with self._reaching(CALL_SECONDS) as client, socket.socket(socket.AF_UNIX) as asking:
            adapter = getattr(client, "_custom_adapter", None)
            if not isinstance(adapter, UnixHTTPAdapter):
                return 0
            asking.settimeout(CONNECT_SECONDS)
            asking.connect(adapter.socket_path)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid: int = struct.unpack("3i", credentials)[0]
            return pid

    def settled(self) -> bool:
        """Whether the engine has been in reach for long enough that what it doesn't list is gone."""
        return self._lost_at is None or self._clock.monotonic() - self._lost_at > SETTLE_SECONDS

    def pull(self, image: str, *, platform: str = "") -> None:
        """Fetch ``image`` from its registry; threads that want the same one take turns, and only the first fetches.

        Raises ExecutorError: permanent where the registry does not hand it out.
        """
        with self._lock:
            turn = self._pulls.setdefault(image, threading.Lock())
        if not turn.acquire(blocking=False):
            # Somebody is fetching it: wait for that, the caller then looks whether it is there.
            if not turn.acquire(timeout=PULL_SECONDS):
                raise ExecutorError(f"image {image}: another pull of it has not ended in {PULL_SECONDS:.0f} s")
            turn.release()
            return
        try:
            self._pull(image, platform)
        finally:
            turn.release()

    def _pull(self, image: str, platform: str) -> None:
        from docker.auth import get_config_header, resolve_repository_name
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(image)
        query = {"fromImage": repository, "tag": tag or "latest"} | ({"platform": platform} if platform else {})
        end = self._clock.monotonic() + PULL_SECONDS
        with self._reaching(PULL_SILENCE_SECONDS) as client:
            login = get_config_header(client, resolve_repository_name(repository)[0])
            with client.post(
                self._url(client, "/images/create"),
                params=query,
                headers={"X-Registry-Auth": login} if login else {},
                stream=True,
                timeout=(CONNECT_SECONDS, PULL_SILENCE_SECONDS),
            ) as response:
                if response.status_code != 200:
                    raise _not_pulled(image, words_of(response))
                for line in response.iter_lines():
                    error = json.loads(line).get("error") if line else None
                    if error:
                        raise _not_pulled(image, str(error))
                    if self._clock.monotonic() > end:
                        raise ExecutorError(f"image {image}: not pulled within {PULL_SECONDS:.0f} s")

    def events(self, labels: Mapping[str, str]) -> Iterator[str]:
        """Yields "" once listening has begun, then the id of each container with ``labels`` that ended or is gone.

        Ends when nothing happened for a while or after ``close``. Raises ExecutorError when the engine goes away.
        """
        from docker.types import CancellableStream
        from urllib3.exceptions import ReadTimeoutError

        filters = {"type": ["container"], "event": ["die", "destroy", "oom"]}
        filters["label"] = [f"{name}={value}" for name, value in labels.items()]
        with self._reaching(EVENTS_SILENCE_SECONDS, whole=True) as client:
            response = client.get(
                self._url(client, "/events"),
                params={"filters": json.dumps(filters)},
                stream=True,
                timeout=(CONNECT_SECONDS, EVENTS_SILENCE_SECONDS),
            )
            self._stream = CancellableStream(response.raw.stream(4096), response)
            try:
                yield ""
                for chunk in self._stream:
                    yield _container_of(chunk)
            except ReadTimeoutError:
                return  # nothing has happened, or the connection is dead: a new one tells
            finally:
                self._stream = None
                response.close()
            if not self._closed:
                raise ConnectionError("the engine ended the stream of events")

    def close(self) -> None:
        """Drop every connection; a thread in ``events`` comes back. Idempotent."""
        self._closed = True
        stream, client = self._stream, self._client
        if stream is not None:
            with suppress(OSError, AttributeError):  # it may be ending by itself right now
                stream.close()
        if client is not None:
            client.close()

    @contextmanager
    def _reaching(self, deadline: float, *, whole: bool = False) -> Iterator[APIClient]:
        """The client, with every way in which the engine can be out of reach turned into ExecutorError."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException, Timeout
        from urllib3.exceptions import HTTPError

        try:
            yield self._connected()
        except (Timeout, RequestException, DockerException, HTTPError, OSError) as error:
            silent = _is_silence(error)
            if whole or not silent:
                self._lost_at = self._clock.monotonic()
            if silent or isinstance(error, Timeout):
                raise ExecutorError(f"the Docker engine did not answer within {deadline:.0f} s", hint=_HINT) from error
            where = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT") or "its usual address"
            raise ExecutorError(
                f"cannot reach the Docker engine at {where}: {_root_cause(error)}", hint=_HINT
            ) from error

    def _connected(self) -> APIClient:
        with self._lock:
            if self._client is None:
                import docker

                context = os.environ.get("DOCKER_CONTEXT")
                if context and not os.environ.get("DOCKER_HOST") and docker.ContextAPI.get_context(context) is None:
                    raise ConnectionError(f'DOCKER_CONTEXT names "{context}", which does not exist')
                self._client = docker.from_env(
                    timeout=CALL_SECONDS, max_pool_size=CONNECTIONS, environment=_environment()
                ).api
                # A local socket needs no proxy and no ~/.netrc; requests would look for both at every call.
                self._client.trust_env = not self._client.base_url.startswith("http+docker:")
            return self._client

    def _url(self, client: APIClient, path: str) -> str:
        return f"{client.base_url}/v{client.api_version}{path}"


def own_sockets() -> list[str]:
    """Where an engine of this machine may listen that is this user's, or that the environment names."""
    named = os.environ.get("DOCKER_HOST", "")
    found = [named.removeprefix("unix://")] if named.startswith("unix:///") else []
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [*found, f"{folder}/docker.sock"]


def _environment() -> dict[str, str]:
    """The environment; where it names no engine and the usual socket is not for this user, with the socket of an
    engine that runs without root (https://docs.docker.com/engine/security/rootless/)."""
    environment = dict(os.environ)
    named = environment.get("DOCKER_HOST") or environment.get("DOCKER_CONTEXT")
    own = own_sockets()[-1]
    if not named and not os.access(USUAL_SOCKET, os.R_OK | os.W_OK) and os.access(own, os.R_OK | os.W_OK):
        import docker

        context = docker.ContextAPI.get_current_context()
        if context is None or context.name == "default":
            environment["DOCKER_HOST"] = f"unix://{own}"
    return environment


def socket_of(response: Response) -> Any:
    """The socket that a streamed answer comes from."""
    return output_of(response).raw._sock  # the same way as docker's own package goes


def output_of(response: Response) -> Any:
    """Where a streamed answer is read from, with what came together with its head."""
    return response.raw._fp.fp  # type: ignore[union-attr]


def words_of(response: Response) -> str:
    """What the engine says about a failure, on one line."""
    return Answer(response.status_code, _decoded(response)).message


def one_line(text: str) -> str:
    """Words of others made fit to be shown: one line, bounded, nothing that a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:2000]).split())[:600]


def _decoded(response: Response) -> Any:
    try:
        return json.loads(response.content) if response.content else None
    except ValueError:
        return response.text


def _is_silence(error: Exception) -> bool:
    """Whether the engine took the request and then said nothing, or nothing more, for too long."""
    from requests.exceptions import ReadTimeout
    from urllib3.exceptions import ReadTimeoutError

    # Silence in the middle of a body is a ConnectionError to requests, with the reason inside.
    return isinstance(error, ReadTimeout) or any(isinstance(reason, ReadTimeoutError) for reason in error.args)


def _not_pulled(image: str, message: str) -> ExecutorError:
    return ExecutorError(
        f"image {image} is not on this host and can't be pulled: {one_line(message)}",
        permanent=True,
        hint=f"check the name and the login (docker login), or load it on the host; try: docker pull {image}",
    )


def _root_cause(error: BaseException) -> str:
    """The innermost reason: the layers around it repeat themselves over hundreds of characters."""
    cause = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)[:200]


def _container_of(chunk: bytes) -> str:
    """The id of the container that an event is about; "" where the chunk is no whole event."""
    try:
        return str(json.loads(chunk)["Actor"]["ID"])
    except (ValueError, LookupError, TypeError):
        return ""
