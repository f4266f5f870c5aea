"""Fixtures for tests that need a real Consul or a real Docker engine (``scripts/services start`` brings both).

A test that asks for a service which is not there is skipped, saying so; it fails instead when ``SKED_TEST_REQUIRE``
(comma separated: ``consul,docker``) names that service, as in CI.
"""

# ruff: noqa: S310 -- asks nobody but 127.0.0.1

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent
BUSYBOX_IMAGE = "sked-test/busybox:1"
_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _missing(service: str, reason: str) -> NoReturn:
    if service in os.environ.get("SKED_TEST_REQUIRE", "").split(","):
        pytest.fail(f"SKED_TEST_REQUIRE names {service}, but {reason}")
    pytest.skip(reason)


def _services_env() -> dict[str, str]:
    """What ``scripts/services`` wrote down, overridden by the environment."""
    with contextlib.suppress(FileNotFoundError):
        lines = (ROOT / ".services" / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines) | dict(os.environ)
    return dict(os.environ)


def _consul_binary() -> str | None:
    return shutil.which(_services_env().get("CONSUL_BIN", "consul"))


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _get(url: str, timeout: float = 5) -> bytes | None:
    """The body, or None while there is no good answer."""
    with contextlib.suppress(OSError), _local.open(url, timeout=timeout) as answer:
        body: bytes = answer.read()
        return body
    return None


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Call it for a loopback port that nobody listens on."""
    return lambda: _free_ports(1)[0]


@pytest.fixture(scope="session")
def consul() -> str:
    """``consul://127.0.0.1:PORT`` of the running dev agent. Other tests use it at the same time: keep to a prefix
    or to names of your own, or take ``private_consul``."""
    address = _services_env().get("CONSUL_HTTP_ADDR")
    if not address:
        _missing("consul", "no Consul agent is known: run scripts/services start, or set CONSUL_HTTP_ADDR")
    address = address.removeprefix("http://")
    if not (_get(f"http://{address}/v1/status/leader") or b"").strip(b'" \n'):
        _missing("consul", f"the Consul agent at {address} does not answer: run scripts/services start")
    return f"consul://{address}"


class PrivateConsul:
    """A Consul server with a data folder of its own, which a test may pause, kill, wipe and start again.

    It keeps its ports and its data from one start to the next. ``url`` is for Sked, ``http`` for curl.
    """

    def __init__(self, binary: str, folder: Path, settings: Mapping[str, object]) -> None:
        port, server, serf = _free_ports(3)
        self.http = f"http://127.0.0.1:{port}"
        self.url = f"consul://127.0.0.1:{port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "sked-test",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": str(folder / "data"),
            "log_level": "warn",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "performance": {"raft_multiplier": 1},
            "ports": {"http": port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1},
            **settings,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        self._command = [binary, "agent", "-config-file", str(folder / "config.json")]

    def start(self, timeout: float = 30) -> None:
        """Start it, and return once it takes writes. Nothing to do while it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + timeout
        while not self._takes_writes():
            if time.monotonic() > deadline or self._process.poll() is not None:
                tail = (self._folder / "log").read_text()[-2000:]
                raise AssertionError(f"Consul at {self.http} did not come up:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, data kept. Nothing to do while it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections open, but nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Kill it and remove its data; after the next ``start`` it is an empty store."""
        self.kill()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)

    def _takes_writes(self) -> bool:
        """A leader alone is not enough: right after a start a write may still be refused."""
        request = urllib.request.Request(f"{self.http}/v1/kv/sked-test-probe", data=b"x", method="PUT")
        with contextlib.suppress(OSError, urllib.error.URLError):
            with _local.open(request, timeout=2) as answer:
                written = answer.read().strip() == b"true"
            request.method, request.data = "DELETE", None
            with _local.open(request, timeout=2):
                return written and _get(f"{self.http}/v1/agent/self", timeout=2) is not None
        return False


@pytest.fixture
def private_consul(tmp_path: Path) -> Iterator[Callable[..., PrivateConsul]]:
    """A factory of PrivateConsul: each call starts one more. Keyword arguments go into Consul's configuration."""
    binary = _consul_binary()
    if binary is None:
        _missing("consul", "there is no consul program: run scripts/services start, or put one on PATH")
    started: list[PrivateConsul] = []

    def start(**settings: object) -> PrivateConsul:
        agent = PrivateConsul(binary, tmp_path / f"consul-{len(started)}", settings)
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        agent.kill()


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine answers."""
    if shutil.which("docker") is None:
        _missing("docker", "there is no docker program: run scripts/services start")
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        _missing("docker", "the Docker engine did not answer within 30 s")
    else:
        if answer.returncode:
            _missing("docker", f"no Docker engine answers: {answer.stderr.strip()[:200]}")


@pytest.fixture(scope="session")
def busybox_image(docker_engine: None) -> str:
    """The name of a local image with nothing but busybox in it; made when it is not there yet."""
    present = subprocess.run(["docker", "image", "inspect", BUSYBOX_IMAGE], capture_output=True, timeout=30)
    if present.returncode:
        if not Path("/bin/busybox").exists():
            _missing("docker", "there is no /bin/busybox to make an image of: install busybox-static")
        subprocess.run([ROOT / "scripts" / "busybox-image", BUSYBOX_IMAGE], check=True, timeout=120)
    return BUSYBOX_IMAGE
