"""A steady load on a service, as a client that does it right sends it: turn by turn to the instances that Consul calls
passing, a new connection for each request, and every one of them counted.

Requests are due at fixed times, whatever became of those before them, and none is tried twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Address = tuple[str, int]
RATE, THREADS, TIMEOUT_SECONDS = 200.0, 8, 3.0
LONGEST_SECONDS = 300.0
"""After so long the load ends by itself: a test that hangs must not keep the machine busy."""


class Passing:
    """The passing instances of a service, by one blocking query after another to the Consul at ``http``.

    ``least``: the fewest that passed at once since ``floor`` was called last (or since they were first complete)."""

    def __init__(self, http: str, service: str) -> None:
        self._url = f"{http}/v1/health/service/{service}?passing"
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._closed = threading.Event()
        self.targets: Sequence[Address] = ()
        self.seen: list[tuple[float, int]] = []
        """How many passed from when on (monotonic), for every change that was seen."""
        self._thread = threading.Thread(target=self._follow, name="passing", daemon=True)
        self._thread.start()

    def __call__(self) -> Sequence[Address]:
        return self.targets

    def least(self, since: float = 0.0) -> int:
        """The fewest that passed at once from ``since`` (monotonic) on."""
        before = [count for at, count in self.seen if at <= since][-1:]
        return min([*before, *(count for at, count in self.seen if at > since)])

    def close(self) -> None:
        self._closed.set()
        self._thread.join(60)

    def _follow(self) -> None:
        index = "0"
        while not self._closed.is_set():
            try:
                # A second at most, so that close() is quick.
                with self._direct.open(f"{self._url}&wait=1s&index={index}", timeout=10) as answer:
                    found, index = json.loads(answer.read()), answer.headers["X-Consul-Index"]
            except OSError:
                self._closed.wait(0.1)  # what was known last goes on being used
                continue
            self.targets = [
                (one["Service"]["Address"] or one["Node"]["Address"], one["Service"]["Port"]) for one in found
            ]
            if not self.seen or self.seen[-1][1] != len(found):
                self.seen.append((time.monotonic(), len(found)))


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a good answer: seconds since the load began, where it went, and why it failed."""

    at: float
    target: Address | None
    why: str

    def __str__(self) -> str:
        where = f"port {self.target[1]}" if self.target else "nobody"
        return f"{self.at:.2f} s, to {where}: {self.why}"


class Traffic:
    """GET / at ``rate`` per second while the block runs, each request to the next of ``targets``.

    After it: ``sent`` requests, the ``failures`` among them, ``answers`` by their text, ``late``: the longest that a
    request was sent after it was due, in seconds (a load that is late was no steady one)."""

    def __init__(self, targets: Callable[[], Sequence[Address]], *, rate: float = RATE, threads: int = THREADS) -> None:
        self._targets, self._rate = targets, rate
        self._numbers, self._done = itertools.count(), threading.Event()
        self._lock = threading.Lock()
        self.sent, self.late = 0, 0.0
        self.failures: list[Failure] = []
        self.answers: Counter[str] = Counter()
        self._begun = 0.0
        self._threads = [
            threading.Thread(target=self._send, name=f"traffic {number}", daemon=True) for number in range(threads)
        ]

    def __enter__(self) -> Traffic:
        self._begun = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS + 5)

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._begun

    def __str__(self) -> str:
        kinds = Counter(failure.why for failure in self.failures)
        why = "".join(f"; {count} x {text}" for text, count in kinds.most_common())
        return f"{self.sent} requests, {len(self.failures)} failed{why}"

    def _send(self) -> None:
        while True:
            number = next(self._numbers)
            due = number / self._rate
            if self._done.wait(max(0.0, due - self.seconds)) or due > LONGEST_SECONDS:
                return
            began = self.seconds
            targets = self._targets()
            target = targets[number % len(targets)] if targets else None
            try:
                answer = get(target) if target else None
                failure = None if answer is not None else Failure(began, None, "no instance passes")
            except (OSError, ValueError) as error:
                answer, failure = None, Failure(began, target, str(error) or type(error).__name__)
            with self._lock:
                self.sent += 1
                self.late = max(self.late, began - due)
                if failure is not None:
                    self.failures.append(failure)
                elif answer is not None:
                    self.answers[answer] += 1


def get(target: Address, timeout: float = TIMEOUT_SECONDS) -> str:
    """The body of ``GET /`` over a connection of its own. Raises OSError, and ValueError for half an answer or one
    that is not 200."""
    with socket.create_connection(target, timeout=timeout) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {target[0]}\r\n\r\n".encode())
        parts = list(iter(lambda: connection.recv(65536), b""))
    head, separator, body = b"".join(parts).partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("the connection was closed without an answer" if not head else "half an answer")
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split()[1:2] != ["200"]:
        raise ValueError(status)
    for name, value in (line.split(":", 1) for line in lines if ":" in line):
        if name.lower() == "content-length" and int(value) != len(body):
            raise ValueError("half an answer")
    return body.decode().strip()


@contextlib.contextmanager
def passing(http: str, service: str):
    """A Passing that is closed in the end."""
    found = Passing(http, service)
    try:
        yield found
    finally:
        found.close()
