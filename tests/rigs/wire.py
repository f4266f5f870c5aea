"""A wire to an engine's socket that fails on demand."""

import contextlib
import socket
import threading
from pathlib import Path


class Wire:
    """A Unix socket that leads to the engine's. It can be cut, and it can swallow the reply to certain requests."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self._engine = path, engine
        self._swallow, self._heads_pass = b"", False
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Nothing listens any more, and what is open breaks."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self.path.unlink()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def swallow_reply_to(self, words: str, *, heads_pass: bool = False) -> None:
        """The engine carries out requests whose line holds ``words``, but nobody hears of it, or of no more than the
        head of the reply. Empty: all are heard."""
        self._swallow, self._heads_pass = words.encode(), heads_pass

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._engine)
                self._open += [near, far]
                silent = threading.Event()
                threading.Thread(target=self._ask, args=(near, far, silent), daemon=True).start()
                threading.Thread(target=self._reply, args=(far, near, silent), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                if self._swallow and self._swallow in data.partition(b"\r\n")[0]:
                    silent.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _reply(self, far: socket.socket, near: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if not silent.is_set():
                    near.sendall(data)
                elif self._heads_pass:
                    near.sendall(b"".join(data.partition(b"\r\n\r\n")[:2]))
            near.shutdown(socket.SHUT_WR)
