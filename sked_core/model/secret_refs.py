"""References to secrets in a container's ``executor.env``: ``{secret: NAME}`` in place of a text.

They stand in the store, in digests and in whatever is shown; what they stand for is read on the host when the container
is started, and goes to its executor beside the spec (runtime.agent.task_secrets).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from sked_core.errors import Problem
from sked_core.model.spec import check_spec, plain, show
from sked_core.model.types import Container, Task

MAX_NAME = 200
NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PROVIDER = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_LEADING = re.compile(r"(LD_|SKED_|PYTHON|PERL|RUBY|NODE_|JAVA_|BASH_|DOCKER_)|(PATH|ENV|IFS|PS4|SHELLOPTS|HOME)\Z")
"""Variables that lead programs: what they load and run is to be seen in the manifest, where policies look at it."""
HELD = "***"
"""What stands in for a value."""


class SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    """What a variable is to hold. ``provider``: ``""`` for the host's own choice; ``key``: a field within the secret,
    where it has several; ``rotate``: whether the task is restarted for a new version."""

    secret: str
    provider: str = ""
    key: str = ""
    rotate: Literal["none", "restart"] = "none"

    def __str__(self) -> str:
        return f"{self.provider}:{self.secret}" if self.provider else self.secret


def references(executor: Mapping[str, Any]) -> dict[str, SecretRef]:
    """The valid references of a container's ``executor`` object, by variable."""
    found: dict[str, SecretRef] = {}
    for name, value in _mappings(executor):
        try:
            found[name] = msgspec.convert(value, SecretRef)
        except (msgspec.ValidationError, ValueError, TypeError, RecursionError):
            continue
    return found


def of_task(task: Task) -> dict[tuple[str, str], SecretRef]:
    """The references of all containers, by container and variable."""
    return {
        (container.name, variable): ref
        for container in task.task_definition.containers
        for variable, ref in references(container.executor).items()
    }


def secret_variables(task: Task, container: str) -> list[str]:
    """The variables of one container whose values are secrets: an executor that keeps environments has to leave their
    values out."""
    return sorted(variable for name, variable in of_task(task) if name == container)


def problems(executor: Mapping[str, Any]) -> Iterator[Problem]:
    """All that is wrong with the references of an ``executor`` object; paths are relative to it."""
    for name, value in _mappings(executor):
        path = f"env.{plain(name[:80])}"
        if not any(field in value for field in SecretRef.__struct_fields__):
            yield Problem(path, f"expected a value or {{secret: NAME}}, got {show(value)}")
            continue
        wrong = check_spec(value, SecretRef, path)
        yield from wrong
        if not wrong:
            yield from _mistakes(path, name, msgspec.convert(value, SecretRef))


def held(executor: Mapping[str, Any]) -> dict[str, Any]:
    """``executor`` with a text in place of each reference: what executors are asked to judge."""
    if not any(True for _ in _mappings(executor)):
        return dict(executor)
    env = {name: HELD if isinstance(value, Mapping) else value for name, value in executor["env"].items()}
    return {**executor, "env": env}


def without(container: Container) -> Container:
    """``container`` without its references: what an executor is given to start, the values apart."""
    if not any(True for _ in _mappings(container.executor)):
        return container
    env = {name: value for name, value in container.executor["env"].items() if not isinstance(value, Mapping)}
    return msgspec.structs.replace(container, executor={**container.executor, "env": env})


def _mappings(executor: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    env = executor.get("env") if isinstance(executor, Mapping) else None
    if isinstance(env, Mapping):
        yield from ((str(name), value) for name, value in env.items() if isinstance(value, Mapping))


def _mistakes(path: str, variable: str, ref: SecretRef) -> Iterator[Problem]:
    if not _VARIABLE.match(variable):
        yield Problem(path, f"{show(variable)} is not a name of a variable: letters, digits and _, no digit first")
    elif _LEADING.match(variable):
        yield Problem(path, f"{show(variable)} decides what programs run, which no secret may: write its value here")
    if len(ref.secret) > MAX_NAME or not NAME.match(ref.secret) or ".." in ref.secret:
        message = f'1 to {MAX_NAME} of A-Z a-z 0-9 _ . - in parts that / separates, without ".." or a leading . or -'
        yield Problem(f"{path}.secret", f"expected {message}, got {show(ref.secret)}")
    if ref.provider and not _PROVIDER.match(ref.provider):
        yield Problem(f"{path}.provider", f"expected the name of a provider, such as file, got {show(ref.provider)}")
    if len(ref.key) > MAX_NAME or not ref.key.isprintable():
        yield Problem(f"{path}.key", f"expected a field's name of at most {MAX_NAME} characters, got {show(ref.key)}")
