"""A proxy that counts the requests of one process to its store, however it speaks: HTTP/1.1 (Consul) or gRPC (etcd)."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[^ ?\r\n]*)[^ \r\n]* HTTP/1\.1\r\n")
_LONGEST_LINE = 4096
_PREFACE_BYTES, _FRAME_HEADER_BYTES, _HEADERS = 24, 9, 1


class CountingProxy:
    """Listens on ``port`` and hands everything on to ``target`` (host:port). ``seen`` counts requests by what they
    ask for: method and path, or ``call`` where that is compressed."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.seen: Counter[str] = Counter()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with their peers."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_hand_on, args=(near, far, self._count), daemon=True).start()
                threading.Thread(target=_hand_on, args=(far, near, None), daemon=True).start()

    def _count(self, chunks: Iterator[bytes]) -> None:
        held = next(chunks, b"")
        if held.startswith(b"PRI * HTTP/2.0"):
            self._count_calls(held, chunks)
        else:
            self._count_requests(held, chunks)

    def _count_requests(self, held: bytes, chunks: Iterator[bytes]) -> None:
        while True:
            ended = 0
            for found in _REQUEST_LINE.finditer(held):
                self.seen[f"{found[1].decode()} {found[2].decode()}"] += 1
                ended = found.end()
            held = held[max(ended, len(held) - _LONGEST_LINE) :]
            if not (more := next(chunks, b"")):
                return
            held += more

    def _count_calls(self, held: bytes, chunks: Iterator[bytes]) -> None:
        """Each call begins with a frame of headers (RFC 9113, section 4.1: 3 bytes of length, then the type)."""
        held = held[_PREFACE_BYTES:]
        while True:
            while len(held) < _FRAME_HEADER_BYTES or len(held) < _FRAME_HEADER_BYTES + int.from_bytes(held[:3], "big"):
                if not (more := next(chunks, b"")):
                    return
                held += more
            self.seen["call"] += held[3] == _HEADERS
            held = held[_FRAME_HEADER_BYTES + int.from_bytes(held[:3], "big") :]


def _hand_on(source: socket.socket, sink: socket.socket, count: Callable[[Iterator[bytes]], None] | None) -> None:
    """Everything from one socket to the other, then the end."""

    def chunks() -> Iterator[bytes]:
        with suppress(OSError):
            while chunk := source.recv(1 << 18):
                sink.sendall(chunk)
                yield chunk

    if count is not None:
        count(chunks())
    else:
        for _ in chunks():
            continue
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
