"""What sked-docker offers: the executor ``docker``. The engine's client is loaded at its first use, not here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import Executor, ExecutorContext, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


def _docker(context: ExecutorContext) -> Executor:
    from sked_docker.executor import DockerExecutor

    return DockerExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"docker": _docker}


@hookimpl
def sked_samples() -> Sequence[Sample]:
    from sked_docker.samples import docker_sample

    return [docker_sample()]
