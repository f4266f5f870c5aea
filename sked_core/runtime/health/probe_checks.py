"""One run of one health check, in Consul's terms, each within its deadline whatever the other side does.

http passes on 2xx (429 is a warning to Consul, and counts as unhealthy here), redirects are not followed; tcp passes
when the connection is accepted; script passes on exit code 0. Output is cut at 4 KB as Consul's agent does it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from sked_core.as_user import Account, chosen, clean_environment, spawn
from sked_core.model.environment import task_environment, with_port
from sked_core.model.policy import ChecksGate
from sked_core.model.types import Check, Health, Task

OUTPUT_BYTES = 4096
HEAD_BYTES = 16384
BODY_SECONDS = 0.5
_OWN_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def run_check(check: Check, task: Task, timeout: float, gate: ChecksGate) -> Health | None:
    """The outcome of one http, tcp or script check within ``timeout`` seconds; ``gate``: as whom scripts run. Never
    raises for a failing target.

    None if nothing was learnt of the target, because this process or host is out of descriptors, processes or memory.

    Looking up a host name is bounded by the resolver only; addresses need no look-up.
    """
    deadline = time.monotonic() + timeout
    kind = "http" if check.http else "tcp" if check.tcp else "script"
    try:
        if check.http:
            return _http(with_port(check.http, task.port), deadline)
        if check.tcp:
            return _tcp(with_port(check.tcp, task.port), deadline)
        who = chosen(gate.user, root=gate.root)
        return _script(with_port(check.script, task.port), who, task_environment(task), deadline)
    except TimeoutError:
        return Health(False, f"{kind}: no answer within {timeout:g} s")
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in _OWN_LACKS:
            return None
        return Health(False, f"{kind}: {getattr(error, 'strerror', None) or error}"[:OUTPUT_BYTES])


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    return socket.create_connection((host, port), timeout=_left(deadline))


def _tcp(address: str, deadline: float) -> Health:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return Health(False, f"tcp: {address!r:.200} is not of the form host:port")
    with _connect(host.strip("[]"), int(port), deadline):
        return Health(True, f"tcp {address}: connected")


def _http(url: str, deadline: float) -> Health:
    """A GET on a bare socket: http.client has a deadline for each read only, not for the whole answer."""
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname:
        return Health(False, f"http: {url!r:.200} is not an http:// or https:// URL")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = parts.netloc.rpartition("@")[2]
    with _connect(parts.hostname, parts.port or (443 if secure else 80), deadline) as bare:
        bare.settimeout(_left(deadline))
        sock = ssl.create_default_context().wrap_socket(bare, server_hostname=parts.hostname) if secure else bare
        with sock:
            sock.sendall(
                f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sked\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            head, body = _answer(sock, deadline)
    status_line = head.partition(b"\r\n")[0].decode("latin-1")
    words = status_line.split(None, 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return Health(False, f"http {url}: no HTTP answer ({status_line!r:.80})")
    text = body.decode("utf-8", "replace").strip()
    passed = 200 <= int(words[1]) <= 299
    return Health(passed, f"http {url}: {' '.join(words[1:])}" + (f": {text}" if text and not passed else ""))


def _answer(sock: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    """The head (at most 16 KB) and the beginning of the body (at most 4 KB, and not waited for long)."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < HEAD_BYTES and (chunk := _receive(sock, deadline)):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    deadline = min(deadline, time.monotonic() + BODY_SECONDS)
    try:
        while len(body) < OUTPUT_BYTES and (chunk := _receive(sock, deadline)):
            body += chunk
    except OSError:
        return head, body[:OUTPUT_BYTES]  # the status is known: a body that dribbles or breaks off changes nothing
    return head, body[:OUTPUT_BYTES]


def _receive(sock: socket.socket, deadline: float) -> bytes:
    sock.settimeout(_left(deadline))
    return sock.recv(OUTPUT_BYTES)


def _script(script: str, who: Account, environment: dict[str, str], deadline: float) -> Health:
    """Run in a session of its own; whatever is left of that session afterwards is killed."""
    process = spawn(
        ["bash", "-c", script],
        who,
        env=clean_environment(who) | environment,
        cwd=Path("/"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output = _output_until_exit(process, deadline)
    finally:
        # The process is not reaped yet, so its id, and the group's, can't have passed to somebody else.
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
    text = output.decode("utf-8", "replace").strip()
    return Health(code == 0, text if code == 0 else f"script: exit {code}" + (f": {text}" if text else ""))


def _output_until_exit(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What it prints until it has ended. A child left behind may hold the pipe open: the end is seen by the pid."""
    if process.stdout is None:
        return b""
    pipe, output, at_end, pause = process.stdout.fileno(), b"", False, 0.001
    os.set_blocking(pipe, False)
    events = select.poll()  # select.select takes no descriptor from 1024 on
    events.register(pipe, select.POLLIN)
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        while chunk := _read(pipe):
            output = (output + chunk)[:OUTPUT_BYTES]
            _left(deadline)
        if ended:
            return output
        if chunk == b"" and not at_end:
            at_end = True
            events.unregister(pipe)  # it would be ready for ever
        events.poll(1000 * min(pause, _left(deadline)))
        pause = min(2 * pause, 0.05)


def _read(pipe: int) -> bytes | None:
    """The next bytes; empty at the end; None where there is nothing yet."""
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return None
