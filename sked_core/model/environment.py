"""What a task is told about itself: its environment, and its port inside checks."""

from __future__ import annotations

import re

from sked_core.model.types import Task

_PORT = re.compile(r"\$PROVIDED_PORT(?![A-Za-z0-9_])|\$\{PROVIDED_PORT\}")


def task_environment(task: Task) -> dict[str, str]:
    """The variables that every container, setup command and script check of ``task`` gets."""
    port = str(task.port)
    return {
        "PROVIDED_PORT": port,
        "PORT": port,
        "SKED_TASK_ID": task.id,
        "SKED_CLUSTER": task.cluster.name,
        "SKED_SERVICE": task.service,
        "SKED_VERSION": str(task.task_definition.version),
        "SKED_INSTANCE": str(task.instance),
        "SKED_HOST": task.host,
    }


def with_port(text: str, port: int) -> str:
    """``text`` with ``$PROVIDED_PORT`` and ``${PROVIDED_PORT}`` replaced by the number; nothing else is expanded."""
    return _PORT.sub(str(int(port)), text)
