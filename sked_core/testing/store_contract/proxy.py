"""A TCP proxy in front of an engine, which counts, cuts and silences connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

CONNECT_SECONDS = 5.0


class Proxy:
    """Forwards from ``address`` (``host:port`` on the loopback interface) to ``target`` (``host:port``).

    Where the target does not take a connection, it is closed as soon as it was accepted. ``accepted`` counts all.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self._guard = threading.Lock()
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._silent: set[socket.socket] = set()
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Break every connection; new ones are taken."""
        with self._guard:
            pairs, self._open = self._open, []
        for pair in pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()

    def silence(self) -> None:
        """Forward nothing more on the connections that are open, without closing them; new ones work."""
        with self._guard:
            self._silent.update(side for pair in self._open for side in pair)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Until the block ends every connection breaks, new ones as soon as they are taken."""
        target, self._target = self._target, ("127.0.0.1", 1)
        self.cut()
        try:
            yield
        finally:
            self._target = target

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            engine = socket.create_connection(self._target, timeout=CONNECT_SECONDS)
        except OSError:
            client.close()
            return
        engine.settimeout(None)
        for side in (client, engine):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self._open.append((client, engine))
        threading.Thread(target=self._forward, args=(engine, client), name="proxy", daemon=True).start()
        self._forward(client, engine)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass on what comes until either side ends; then end both."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._guard:
                    silent = source in self._silent
                if not silent:
                    sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
