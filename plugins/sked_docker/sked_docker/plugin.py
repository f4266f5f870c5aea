"""What sked-docker offers: the executor ``docker``. The engine's client is loaded at its first use, not here."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Executor, ExecutorContext, hookimpl


def _docker(context: ExecutorContext) -> Executor:
    from sked_docker.executor import DockerExecutor

    return DockerExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"docker": _docker}
