"""The definition of the container image, built and run. The base comes from scripts/python-image: no registry."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.needs import missing, program
from rigs.sked import PATIENCE
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "packaging" / "container" / "Dockerfile"
BASE, IMAGE = "sked-test/python:1", "sked-test/sked:1"


def docker(*arguments: str | Path, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    command = [program("docker", "docker.io"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)


@pytest.fixture(scope="module")
def image() -> str:
    if docker("image", "inspect", BASE).returncode:
        missing("container", f"there is no image {BASE} to build on: run scripts/python-image")
    arguments = ["--build-arg", f"BASE={BASE}", "--build-arg", "PLUGINS=consul web"]
    built = docker("build", "--network", "host", "-f", DOCKERFILE, "-t", IMAGE, *arguments, ".", seconds=280)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return IMAGE


def test_it_has_what_was_asked_for_and_runs_as_nobody_of_note(image: str) -> None:
    rows = docker("run", "--rm", image, "plugins").stdout
    assert re.findall(r"^(\w+)", rows, re.MULTILINE)[2:] == ["consul", "web"] or {"consul", "web"} <= set(rows.split())
    who = docker("run", "--rm", "--entrypoint", "/opt/sked/bin/python", image, "-c", "import os; print(os.getuid())")
    assert who.stdout.strip() == "10001"
    names = docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", "ls /src /opt/sked/bin")
    assert "pip" not in names.stdout and "pyproject.toml" not in names.stdout, "what builds is not in it"


@pytest.fixture
def container(image: str, consul: str) -> Iterator[tuple[str, str]]:
    """A scheduler on the shared Consul, and its prefix there."""
    name = prefix = f"sked-test-{secrets.token_hex(4)}"
    settings = ["-e", f"SKED_BACKEND={consul}", "-e", f"SKED_PREFIX={prefix}", "--network", "host"]
    started = docker("run", "--detach", "--init", "--name", name, *settings, image, "run", "scheduler")
    assert started.returncode == 0, started.stderr
    yield name, prefix
    docker("rm", "--force", name)


def test_a_scheduler_in_it_stands_in_line_and_ends_in_peace(container: tuple[str, str], consul: str) -> None:
    name, prefix = container
    store = open_store(consul, Plugins.load(), prefix)
    store.commit([Put(keys.STORE_UID, b"this-store")])
    deadline = time.monotonic() + PATIENCE
    while not store.read(keys.SCHEDULERS).entries:
        assert time.monotonic() < deadline, docker("logs", name).stderr
        time.sleep(0.2)
    store.close()
    assert docker("stop", "--time", "30", name).returncode == 0
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "0"


def test_only_what_the_build_needs_goes_into_its_context() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == allowed
