"""A plugin with executors that do wrong. Processes that have tests/campaign/installed on their path load it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from sked_core.plugin import Container, ExecutorContext, Handle, Observation, Problem, Task, hookimpl


class _Wrong:
    """Takes everything; ``start`` is what differs."""

    def __init__(self, context: ExecutorContext) -> None:
        """Nothing is kept."""

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        return []

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset()

    def stop(self, handle: Handle, grace: float) -> None:
        """There is nothing to stop."""

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        return {}

    def recover(self) -> Mapping[Handle, Observation]:
        return {}

    def watch(self, notify: Any) -> None:
        """Nothing is ever told."""

    def close(self) -> None:
        """There is nothing to close."""


class Raises(_Wrong):
    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        raise RuntimeError("this executor is broken")


class Hangs(_Wrong):
    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        threading.Event().wait(3600)
        raise AssertionError


class Nothing(_Wrong):
    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Any:
        return None


class Exits(_Wrong):
    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Any:
        raise SystemExit(3)


class Blind(_Wrong):
    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Any:
        return Handle(task.id, container.name, "x", "y")

    def inspect(self, handles: Iterable[Handle]) -> Any:
        return ["not", "a", "mapping"]

    def recover(self) -> Any:
        raise KeyError("recover")


WRONG = {"raises": Raises, "hangs": Hangs, "nothing": Nothing, "exits": Exits, "blind": Blind}


@hookimpl
def sked_executors() -> Mapping[str, Any]:
    return WRONG
