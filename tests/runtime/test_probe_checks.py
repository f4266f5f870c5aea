"""One run of one check against real servers, friendly and hostile, and real processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rigs.local import descriptors_taken
from sked_core.model.policy import ChecksGate
from sked_core.model.types import Check, Cluster, Health, Task, TaskDefinition
from sked_core.runtime.health import probe_checks
from sked_core.runtime.health.probe_checks import OUTPUT_BYTES

Serve = Callable[[Callable[[socket.socket], None]], int]
LONG = 60.0
"""A timeout that no check here reaches which does what it should."""
SOON = LONG / 2
"""A check that waits for its timeout, or for the other side, takes longer; one that does not, never."""


def task_on(port: int) -> Task:
    definition = TaskDefinition(name="web", version=3, provide_port=True)
    return Task(cluster=Cluster(name="c"), task_definition=definition, service="s", instance=2, port=port, host="h-1")


def run_check(check: Check, task: Task, timeout: float) -> Health | None:
    """As whoever runs the tests, root or not."""
    return probe_checks.run_check(check, task, timeout, ChecksGate(scripts=True, root=True))


def known(outcome: Health | None) -> Health:
    assert outcome is not None
    return outcome


def http(port: int, path: str = "/", timeout: float = LONG) -> Health:
    return known(run_check(Check(http=f"http://127.0.0.1:$PROVIDED_PORT{path}"), task_on(port), timeout))


def script(text: str, timeout: float = LONG) -> Health:
    return known(run_check(Check(script=text), task_on(4242), timeout))


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = int(self.path.strip("/") or 200)
        body = f"this is {status}".encode()
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "/200")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give each connection to a function; returns the port."""
    listeners = []

    def start(answer: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=loop, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("status", [200, 201, 204])
def test_any_2xx_passes(site: int, status: int) -> None:
    outcome = http(site, f"/{status}")
    assert outcome.healthy
    assert str(status) in outcome.output


@pytest.mark.parametrize("status", [301, 302, 404, 429, 500, 503])
def test_anything_else_fails_and_redirects_are_not_followed(
    site: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_checks, "BODY_SECONDS", LONG)
    outcome = http(site, f"/{status}")
    assert not outcome.healthy
    assert f"{status} " in outcome.output
    assert outcome.output.endswith(f"this is {status}")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert http(port) == Health(False, "http: Connection refused")
    tcp = run_check(Check(tcp="127.0.0.1:$PROVIDED_PORT"), task_on(port), LONG)
    assert tcp == Health(False, "tcp: Connection refused")


def test_tcp_passes_when_the_connection_is_accepted(site: int) -> None:
    assert known(run_check(Check(tcp="127.0.0.1:$PROVIDED_PORT"), task_on(site), LONG)).healthy
    assert not known(run_check(Check(tcp="127.0.0.1"), task_on(site), LONG)).healthy


def hang(connection: socket.socket) -> None:
    """Say nothing for as long as the other side waits."""
    while connection.recv(1000):
        """What it asks for."""


def test_a_target_that_hangs_costs_no_more_than_the_timeout(serve: Serve) -> None:
    started = time.monotonic()
    assert http(serve(hang), timeout=0.3) == Health(False, "http: no answer within 0.3 s")
    assert time.monotonic() - started < SOON


def test_a_head_that_dribbles_costs_no_more_than_the_timeout(serve: Serve) -> None:
    def dribble(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"H")
            time.sleep(0.05)

    started = time.monotonic()
    assert not http(serve(dribble), timeout=0.4).healthy
    assert time.monotonic() - started < SOON


def test_a_body_that_never_ends_is_not_read(serve: Serve) -> None:
    def flood(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            connection.sendall(b"x" * 100_000)

    started = time.monotonic()
    outcome = http(serve(flood))
    assert time.monotonic() - started < SOON
    assert not outcome.healthy
    assert len(outcome.output) < OUTPUT_BYTES + 200


def test_a_body_that_dribbles_does_not_hide_the_status(serve: Serve) -> None:
    def dribble(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        hang(connection)

    started = time.monotonic()
    assert http(serve(dribble)).healthy
    assert time.monotonic() - started < SOON


def test_what_is_no_http_fails(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-x\r\n")

    assert "no HTTP answer" in http(serve(answer)).output


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/a b", "http://127.0.0.1:x/"]
)
def test_what_is_no_url_fails_without_a_connection(url: str) -> None:
    outcome = known(run_check(Check(http=url), task_on(1), 1.0))
    assert not outcome.healthy
    assert outcome.output.startswith("http: ")


def test_a_script_passes_on_exit_0_and_knows_its_task() -> None:
    names = "$SKED_TASK_ID $SKED_CLUSTER $SKED_SERVICE $SKED_VERSION $SKED_INSTANCE $SKED_HOST $PORT ${PROVIDED_PORT}"
    assert script(f"echo {names}") == Health(True, "c-s-3-2 c s 3 2 h-1 4242 4242")


def test_a_script_fails_with_its_code_and_output() -> None:
    assert script("echo out; echo err >&2; exit 3") == Health(False, "script: exit 3: out\nerr")


def test_a_script_sees_nothing_of_the_agents_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    assert script("env").output.find("secret") == -1


def test_a_script_that_hangs_is_killed_with_all_it_started() -> None:
    started = time.monotonic()
    marker = f"314.{os.getpid()}"
    outcome = script(f"sleep {marker} & sleep {marker}", timeout=0.3)
    assert time.monotonic() - started < SOON
    assert outcome == Health(False, "script: no answer within 0.3 s")
    assert not processes_with(f"sleep {marker}")


def test_a_child_left_behind_delays_nothing_and_is_killed() -> None:
    started = time.monotonic()
    marker = f"271.{os.getpid()}"
    assert script(f"echo fine; sleep {marker} &") == Health(True, "fine")
    assert time.monotonic() - started < SOON
    assert not processes_with(f"sleep {marker}")


def test_endless_output_ends_at_the_timeout_and_is_not_kept() -> None:
    started = time.monotonic()
    outcome = script("yes", timeout=0.4)
    assert time.monotonic() - started < SOON
    assert not outcome.healthy


def test_output_is_cut() -> None:
    outcome = script("head -c 100000 /dev/zero | tr '\\0' x")
    assert outcome.healthy
    assert len(outcome.output) == OUTPUT_BYTES


def test_without_descriptors_of_its_own_nothing_is_known(site: int) -> None:
    """In a process of its own: here, threads of other tests open and close some meanwhile."""
    program = f"""
import os, resource
from sked_core.model.types import Check, Cluster, Task, TaskDefinition
from sked_core.model.policy import ChecksGate
from sked_core.runtime.health.probe_checks import run_check
task = Task(cluster=Cluster(name="c"), task_definition=TaskDefinition(name="d", version=1), service="s", host="h")
http, tcp = Check(http="http://127.0.0.1:{site}"), Check(tcp="127.0.0.1:{site}")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for check, left in [(http, 0), (tcp, 0), *((Check(script="true"), left) for left in range(4))]:  # it needs five
    before = os.listdir("/proc/self/fd")
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, hard))
    lacking = run_check(check, task, {LONG}, ChecksGate(root=True))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    after = os.listdir("/proc/self/fd")
    print(lacking, len(after) - len(before), run_check(check, task, {LONG}, ChecksGate(root=True)).healthy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert (done.stdout.splitlines(), done.returncode) == (["None 0 True"] * 6, 0), done.stderr


def test_without_a_process_for_it_nothing_is_known_of_a_script() -> None:
    program = """
import os, resource
from sked_core.model.types import Check, Cluster, Task, TaskDefinition
from sked_core.model.policy import ChecksGate
from sked_core.runtime.health.probe_checks import run_check
task = Task(cluster=Cluster(name="c"), task_definition=TaskDefinition(name="d", version=1), service="s", host="h")
if os.getuid() == 0:
    os.setuid(65534)  # the limit does not bind root
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
print(run_check(Check(script="true"), task, 60.0, ChecksGate(root=True)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr


def test_a_script_runs_also_where_descriptors_are_beyond_1024() -> None:
    with descriptors_taken():
        assert script("sleep 0.1; echo fine") == Health(True, "fine")
        assert script("exec >&- 2>&-; sleep 0.2; exit 3") == Health(False, "script: exit 3")


def processes_with(text: str) -> list[str]:
    """Command lines of running processes; a killed one may take a moment to go."""
    deadline = time.monotonic() + SOON
    while True:
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        found = [line for line in lines if line.strip() == text]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
