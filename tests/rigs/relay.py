"""A way between a process and its server that can be cut: nothing gets through then, and nobody is told."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from types import TracebackType


class Relay:
    """Listens on ``port`` of the loopback interface and hands everything on to ``target`` (host:port), both ways.

    While it is cut, what was sent stays unanswered, over old connections and new ones, as behind a broken switch. Bytes
    on their way are kept and arrive after ``heal``."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._joined: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()
        self._open.set()
        for each in itertools.chain(*self._joined.copy()):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._open.wait()
        with contextlib.suppress(OSError), near, socket.create_connection(self._target) as far:
            pair = (near, far)
            self._joined.add(pair)
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()
            self._joined.discard(pair)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._open.wait()
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
