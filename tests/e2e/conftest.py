"""Rigs for whole-system tests: real agents and schedulers as processes, real stores, real containers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.sked import Rig, service


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[[str], Rig]]:
    """A factory of rigs by the URL of their store."""
    rigs: list[Rig] = []

    def make(backend: str) -> Rig:
        folder = tmp_path / f"rig-{len(rigs)}"
        folder.mkdir()
        rigs.append(Rig(backend, folder))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.clean_up()


@pytest.fixture
def rig(make_rig: Callable[[str], Rig], tmp_path: Path) -> Rig:
    """A rig on an embedded store."""
    return make_rig(f"sqlite://{tmp_path / 'sked.db'}")


@pytest.fixture
def consul_rig(make_rig: Callable[[str], Rig], private_consul: Callable[..., Any]) -> tuple[Rig, Any]:
    """A rig on a Consul of its own, and that Consul."""
    consul = private_consul()
    return make_rig(consul.url), consul


@pytest.fixture
def manifest() -> Callable[..., dict[str, Any]]:
    """``manifest(name, desired=…, …)``: see ``rigs.sked.service``."""
    return service


@pytest.fixture
def docker_manifest(busybox_image: str) -> Callable[..., dict[str, Any]]:
    """``docker_manifest(desired=…)``: a service of containers that serve HTTP on their port, checked every second."""

    def make(name: str = "web", **more: Any) -> dict[str, Any]:
        serve = ["httpd", "-f", "-p", "80", "-h", "/bin"]
        container = {
            "type": "docker",
            "executor": {"image": busybox_image, "cmd": serve, "container_port": 80},
            "checks": [{"tcp": "127.0.0.1:$PROVIDED_PORT", "interval": "1s"}],
        }
        return service(name, provide_port=True, container=container, **more)

    return make


CHECKS = [{"http": "http://127.0.0.1:$PROVIDED_PORT/", "interval": "1s"}]
POLITE = Path(__file__).resolve().parent.parent / "rigs" / "polite.py"
BUSYBOX_SERVES = """
echo version $SKED_VERSION >/tmp/index.html
httpd -f -p 80 -h /tmp & server=$!
trap 'kill $server; sleep 0.3; exit 0' TERM
wait $server
"""
"""What httpd has begun is finished by children of its own, so it is given a moment for them."""


@pytest.fixture
def web_in_docker(busybox_image: str) -> Callable[..., dict[str, Any]]:
    """A service of containers that say ``version N``, and that clients are given time to leave alone."""

    def make(**more: Any) -> dict[str, Any]:
        executor = {"image": busybox_image, "cmd": ["sh", "-c", BUSYBOX_SERVES], "container_port": 80}
        container = {"type": "docker", "executor": executor, "checks": CHECKS, **more.pop("container", {})}
        return service(**{"provide_port": True, "shutdown_delay": "1s", "container": container, **more})

    return make


@pytest.fixture
def web() -> Callable[..., dict[str, Any]]:
    """The same as processes."""

    def make(**more: Any) -> dict[str, Any]:
        start = f'exec {sys.executable} {POLITE} $PROVIDED_PORT "version $SKED_VERSION"'
        container = {"checks": CHECKS, **more.pop("container", {})}
        return service(**{"provide_port": True, "shutdown_delay": "1s", "start": start, "container": container, **more})

    return make
