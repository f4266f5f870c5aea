"""What every executor promises, by the kit, with a real engine behind a wire that can be told to fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from rigs.wire import Wire
from sked_core.testing.executors import ExecutorContract
from sked_docker import commands, engine, executor
from sked_docker.samples import docker_sample

wires: list[Wire] = []


def swallowing(words: str, seconds: float = 2.0) -> Callable[[], Any]:
    """``seconds``: how long an answer is waited for; whatever is to be done meanwhile needs enough of them."""

    @contextlib.contextmanager
    def swallow() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (engine, commands):
                patch.setattr(module, "CALL_SECONDS", seconds)
            for deadline in ("CREATE_SECONDS", "START_SECONDS", "REMOVE_SECONDS"):
                patch.setattr(executor, deadline, seconds)
            wires[-1].swallow_reply_to(words)
            yield
            wires[-1].swallow_reply_to("")

    return swallow


class TestDocker(ExecutorContract):
    sample = replace(
        docker_sample("sked-test/busybox:1"),
        hung_engine=swallowing(" HTTP/"),
        lost_answers=swallowing("/start ", 10.0),
        needs=None,  # busybox_image says what lacks, and whether that may be
    )
    kills = 12

    @pytest.fixture(autouse=True)
    def wire(
        self,
        busybox_image: str,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[None]:
        """For the tests that need one: its ends are threads and files of this process as well."""
        if not any(word in request.node.name for word in ("hang", "hung", "lost")):
            yield
            return
        client = docker.from_env().api
        wires.append(Wire(tmp_path / "engine.sock", client._custom_adapter.socket_path))
        client.close()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{wires[-1].path}")
        yield
        wires.pop().cut()
