"""Fixtures for tests that need a real Consul, etcd, DynamoDB, Docker engine or browser, all of which ``scripts/services
start`` brings.

A test that asks for a service which is not there is skipped, saying so; it fails instead when ``SKED_TEST_REQUIRE``
(comma separated: ``consul,etcd,dynamodb,docker,chromium``, and programs by their names) names that service, as in CI.
Tests that cut a network in parts go by the name ``namespaces``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from rigs.clusters import KINDS, Cluster
from rigs.consul import PrivateConsul
from rigs.dynamodb import answers
from rigs.etcd import PrivateEtcd
from rigs.local import Server, ask, free_ports, start_time
from rigs.needs import missing, services_env
from rigs.network import why_no_namespaces

ROOT = Path(__file__).resolve().parent
BUSYBOX_IMAGE = "sked-test/busybox:1"
S = TypeVar("S", bound=Server)
# Whoever starts the tests in the background may have them ignore Ctrl-C, and all that they start with them: there are
# tests of what it does.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes is the business of the machine: as in CI, where Hypothesis itself does not look at it.
known = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("unhurried", known, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def _binary(program: str) -> str:
    """The path of ``consul`` or ``etcd``, the one that ``scripts/services`` uses if it can be had."""
    found = shutil.which(services_env().get(f"{program.upper()}_BIN", program))
    if found is None:
        missing(program, f"there is no {program} program: run scripts/services start, or put one on PATH")
    return found


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command that is run in the tests' own process has the log written to what stderr was then, at its level."""
    root = logging.getLogger()
    before, levels = list(root.handlers), {log: log.level for log in (root, logging.getLogger("sked"))}
    yield
    for added in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(added)
    for log, level in levels.items():
        log.setLevel(level)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Call it for a loopback port that nobody listens on."""
    return lambda: free_ports(1)[0]


@pytest.fixture(scope="session")
def consul() -> str:
    """``consul://127.0.0.1:PORT`` of the running dev agent. Other tests use it at the same time: keep to a prefix
    or to names of your own, or take ``private_consul``."""
    address = services_env().get("CONSUL_HTTP_ADDR")
    if not address:
        missing("consul", "no Consul agent is known: run scripts/services start, or set CONSUL_HTTP_ADDR")
    address = address.removeprefix("http://")
    if not (ask(f"http://{address}/v1/status/leader", timeout=60) or b"").strip(b'" \n'):
        missing("consul", f"the Consul agent at {address} does not answer: run scripts/services start")
    return f"consul://{address}"


@contextlib.contextmanager
def _factory(
    kind: Callable[[str, Path, Mapping[str, object]], S], binary: str, folder: Path
) -> Iterator[Callable[..., S]]:
    """Each call of what it yields starts one more server, with the keyword arguments as its settings."""
    started: list[S] = []

    def start(**settings: object) -> S:
        started.append(kind(binary, folder / str(len(started)), settings))
        started[-1].start()
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            each.kill()


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """The path of a Consul."""
    return _binary("consul")


@pytest.fixture
def private_consul(tmp_path: Path, consul_binary: str) -> Iterator[Callable[..., PrivateConsul]]:
    """A factory of PrivateConsul: each call starts one more. Keyword arguments go into Consul's configuration."""
    with _factory(PrivateConsul, consul_binary, tmp_path / "consul") as start:
        yield start


@pytest.fixture(scope="session")
def etcd() -> str:
    """``etcd://127.0.0.1:PORT`` of the running etcd. Other tests use it at the same time: keep to a prefix or to
    names of your own, or take ``private_etcd``."""
    address = services_env().get("ETCD_ENDPOINT")
    if not address:
        missing("etcd", "no etcd is known: run scripts/services start, or set ETCD_ENDPOINT")
    address = address.removeprefix("http://")
    if b"true" not in (ask(f"http://{address}/health", timeout=60) or b""):
        missing("etcd", f"the etcd at {address} does not answer: run scripts/services start")
    return f"etcd://{address}"


@pytest.fixture(scope="session")
def etcd_binary() -> str:
    """The path of an etcd, which has etcdctl beside it."""
    return _binary("etcd")


@pytest.fixture
def private_etcd(tmp_path: Path, etcd_binary: str) -> Iterator[Callable[..., PrivateEtcd]]:
    """A factory of PrivateEtcd: each call starts one more. Keyword arguments are etcd's flags."""
    with _factory(PrivateEtcd, etcd_binary, tmp_path / "etcd") as start:
        yield start


@pytest.fixture(scope="session")
def dynamodb() -> str:
    """``http://127.0.0.1:PORT`` of the running DynamoDB Local, which keeps all in memory. Other tests use it at the
    same time: name tables of your own, or start a ``rigs.dynamodb.PrivateDynamo``."""
    endpoint = services_env().get("DYNAMODB_ENDPOINT")
    if not endpoint:
        missing("dynamodb", "no DynamoDB Local is known: run scripts/services start, or set DYNAMODB_ENDPOINT")
    if not answers(int(endpoint.rpartition(":")[2])):
        missing("dynamodb", f"the DynamoDB Local at {endpoint} does not answer: run scripts/services start")
    return endpoint


@pytest.fixture(scope="session")
def dynamodb_program() -> str:
    """The folder of DynamoDB Local, for ``rigs.dynamodb.PrivateDynamo``."""
    program = services_env().get("DYNAMODB_LOCAL")
    if not program or shutil.which("java") is None:
        missing("dynamodb", "there is no DynamoDB Local, or no Java: run scripts/services start")
    return program


@contextlib.contextmanager
def _cluster(kind: str, binary: str) -> Iterator[Cluster]:
    """One that is up. Its name says whose it is, so that what a killed run left is found and removed by the next."""
    folder = ROOT / ".services" / "clusters"
    for left in folder.glob("t*x*x*"):
        pid, started, _ = left.name.removeprefix("t").split("x")
        if start_time(int(pid)) != started:
            Cluster(left.name, folder, "").down()
    cluster = KINDS[kind](f"t{os.getpid()}x{start_time(os.getpid())}x{kind[0]}", folder, binary)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def shared_consul_cluster(consul_binary: str) -> Iterator[Cluster]:
    with _cluster("consul", consul_binary) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_etcd_cluster(etcd_binary: str) -> Iterator[Cluster]:
    with _cluster("etcd", etcd_binary) as cluster:
        yield cluster


@pytest.fixture
def consul_cluster(shared_consul_cluster: Cluster) -> Cluster:
    """Three Consul servers and two hosts with client agents, whole at the start of the test. Earlier tests may have
    left data: take a prefix of your own."""
    shared_consul_cluster.mend()
    return shared_consul_cluster


@pytest.fixture
def etcd_cluster(shared_etcd_cluster: Cluster) -> Cluster:
    """Three etcd members and two hosts; else as ``consul_cluster``."""
    shared_etcd_cluster.mend()
    return shared_etcd_cluster


@pytest.fixture
def splits() -> None:
    """This machine can have network namespaces, so parts of a cluster can be cut off."""
    reason = why_no_namespaces()
    if reason:
        missing("namespaces", reason)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker engine answers."""
    if shutil.which("docker") is None:
        missing("docker", "there is no docker program: run scripts/services start")
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        missing("docker", "the Docker engine did not answer within 120 s")
    else:
        if answer.returncode:
            missing("docker", f"no Docker engine answers: {answer.stderr.strip()[:200]}")


@pytest.fixture(scope="session")
def busybox_image(docker_engine: None) -> str:
    """The name of a local image with nothing but busybox in it; made when it is not there yet."""
    present = subprocess.run(["docker", "image", "inspect", BUSYBOX_IMAGE], capture_output=True, timeout=120)
    if present.returncode:
        if not Path("/bin/busybox").exists():
            missing("docker", "there is no /bin/busybox to make an image of: install busybox-static")
        subprocess.run([ROOT / "scripts" / "busybox-image", BUSYBOX_IMAGE], check=True, timeout=120)
    return BUSYBOX_IMAGE


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    known = services_env().get("CHROMIUM", "")
    found = next(filter(None, map(shutil.which, (known, "chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing("chromium", "there is no Chromium: run scripts/services start, or put one on PATH")
    return found


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core, to be run in a page."""
    file = Path(services_env().get("AXE", ""))
    if not file.is_file():
        missing("axe", "there is no axe-core: run scripts/services start with npm on PATH")
    return file.read_text()
