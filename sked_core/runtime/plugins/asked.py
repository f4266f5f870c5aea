"""Executors, health providers and secrets providers of plugins as the rest of Sked has them: what they are given is a
copy, what they answer is what it has to be, and what they do wrong is an error that names them.

What only has to be thought out is asked ``aside`` with a short deadline, since main threads wait for it; what may wait
for others, for as long as no call of an engine lasts.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sked_core.errors import PluginError, Problem, SkedError, Unavailable
from sked_core.interfaces.executor import Executor, ExecutorContext, Handle
from sked_core.interfaces.health import HealthContext, HealthProvider
from sked_core.interfaces.secrets import Secret, SecretContext, SecretProvider
from sked_core.model import codec
from sked_core.model.policy import Denial
from sked_core.model.ports import MAX_PORTS, Binding, bindings_of
from sked_core.model.rules import Checkers, SpecChecker
from sked_core.model.types import Container, Health, Task, TaskId
from sked_core.runtime.plugins.aside import Stranger, failed
from sked_core.runtime.plugins.registry import Plugins, unused
from sked_core.strangers import strangers_turn

log = logging.getLogger("sked.plugins")
WAIT_SECONDS = 60.0
"""How long a call may take that waits for others: they are to have shorter deadlines of their own."""
MAX_PROBLEMS = 1000
"""How many mistakes of one spec are told."""
BUILT_IN = "sked-core "
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


def executor(plugins: Plugins, kind: str, context: ExecutorContext) -> Executor:
    """The executor for containers of type ``kind``. Raises PluginError if it can't be made."""
    stranger = plugins.stranger(f"executor {kind} of {plugins.origin('executor', kind)}")
    theirs = plugins.executor(kind)(context)
    made: Executor = stranger.ask(lambda: AskedExecutor(stranger, theirs))  # whatever it has may be a property
    return made


def health(plugins: Plugins, scheme: str, context: HealthContext) -> HealthProvider:
    """The provider that goes with stores of this scheme. Raises PluginError if it can't be made."""
    made, origin = plugins.health(scheme)(context), plugins.origin("health", scheme)
    ours = not origin or origin.startswith(BUILT_IN)
    return made if ours else AskedHealth(plugins.stranger(f"health provider {scheme} of {origin}"), made)


def secrets(plugins: Plugins, name: str, context: SecretContext) -> SecretProvider:
    """The provider of this name. Raises PluginError if it can't be made, InvalidValue for settings that can't be."""
    made, origin = plugins.secrets(name)(context), plugins.origin("secrets", name)
    return made if origin.startswith(BUILT_IN) else AskedSecrets(plugins.stranger(f"provider {name} of {origin}"), made)


def spec_checkers(plugins: Plugins) -> Mapping[str, SpecChecker]:
    """The executors by type, made only to validate manifests; one that can't be made says so when it is asked."""
    context = ExecutorContext(host="", store_uid="", state_dir=Path(os.devnull))  # nothing can be created there
    checkers = Checkers()
    checkers.lacking = {row.name: unused(row) for row in plugins.rows() if row.error and not row.provides}
    for name in plugins.names("executor"):
        try:
            checkers[name] = executor(plugins, name, context)
        except SkedError as error:
            checkers[name] = _Unusable(error)
    return checkers


class _Unusable:
    """Stands for an executor whose factory failed."""

    def __init__(self, error: SkedError) -> None:
        self._error = error

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        raise self._error

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        raise self._error


def _copied(one: S) -> S:
    return codec.decode(codec.encode(one), type(one))


class _Asked:
    """``made`` by a plugin; what is not said otherwise here is its own."""

    def __init__(self, stranger: Stranger, made: Any) -> None:
        self._stranger, self._made = stranger, made

    def __getattr__(self, name: str) -> Any:
        if name in ("_stranger", "_made"):  # asked for before there is any: by copies
            raise AttributeError(name)
        return getattr(self._made, name)

    def __repr__(self) -> str:
        return f"{self._made!r}"

    def _ask(self, function: Callable[[], T], seconds: float | None = None) -> T:
        return self._stranger.ask(function, seconds=seconds)

    def _wrong(self, what: str, answer: object) -> PluginError:
        return PluginError(f"{self._stranger.who} gave an object of type {type(answer).__name__} for {what}")

    def close(self) -> None:
        try:
            self._ask(lambda: self._made.close())  # which it may lack
        except SkedError as error:
            log.warning("%s", error)


class AskedExecutor(_Asked):
    """See Executor, whose other methods have their own deadlines, and are called where they hold up only its tasks."""

    def __init__(self, stranger: Stranger, made: Any) -> None:
        super().__init__(stranger, made)
        # Set one by one, and only those that it has: by these it is told what the executor is as well (Policed, …).
        for name in ("stop", "inspect", "recover", "tail", "watch", "logs", "kept", "exec"):
            if hasattr(made, name):
                setattr(self, name, self._direct(name))
        own = {"denials": self._denials, "attributes": self._attributes}
        for name in ("denials", "attributes", "policy_type", "spec_type"):
            if (attribute := getattr(made, name, None)) is not None:
                setattr(self, name, own.get(name, attribute))

    def _direct(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            try:
                with strangers_turn():
                    return getattr(self._made, name)(*args)
            except BaseException as error:
                ctrl_c = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
                if ctrl_c or isinstance(error, SkedError):
                    raise
                raise failed(self._stranger.who, error) from error

        return call

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        found = self._ask(lambda: list(itertools.islice(self._made.validate(copy.deepcopy(spec)), MAX_PROBLEMS)))
        for one in found:
            if not isinstance(one, Problem) or not isinstance(one.path, str) or not isinstance(one.message, str):
                raise self._wrong("a problem", one)
        return found

    def bindings(self, spec: Mapping[str, Any], port: int) -> frozenset[Binding]:
        return self._ask(lambda: bindings_of(self._made, copy.deepcopy(spec), port))

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return self._ask(lambda: frozenset(itertools.islice(self._made.ports(copy.deepcopy(spec), port), MAX_PORTS)))

    def _denials(self, task: Task, container: Container) -> list[Denial]:
        found = self._ask(lambda: list(self._made.denials(_copied(task), _copied(container))), WAIT_SECONDS)
        if wrong := [one for one in found if not isinstance(one, Denial)]:
            raise self._wrong("what it denies", wrong[0])
        return found

    def _attributes(self) -> Mapping[str, str]:
        """What it tells of the host; nothing where that fails, since the host has more to say."""
        try:
            found = self._ask(lambda: dict(self._made.attributes()), WAIT_SECONDS)
            if not all(isinstance(text, str) for one in found.items() for text in one):
                raise self._wrong("an attribute", found)
        except SkedError as error:
            log.warning("%s", error)
            return {}
        return found

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        handle: Handle = self._direct("start")(_copied(task), _copied(container), dict(env))
        return handle


class AskedHealth(_Asked):
    """See HealthProvider. Whatever goes wrong is that nothing is known."""

    def _asked(self, function: Callable[[], T]) -> T:
        try:
            return self._ask(function, WAIT_SECONDS)
        except PluginError as error:
            raise Unavailable(str(error)) from error

    def register(self, task: Task) -> None:
        self._asked(lambda: self._made.register(_copied(task)))

    def deregister(self, task_id: TaskId) -> None:
        self._asked(lambda: self._made.deregister(task_id))

    def registered(self) -> frozenset[TaskId]:
        found = self._asked(lambda: frozenset(self._made.registered()))
        self._all(found, str, "a task")
        return found

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        found = self._asked(lambda: dict(self._made.health(services, hosts)))
        self._all(found, str, "a task")
        self._all(found.values(), Health, "the health of a task")
        return found

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        found = self._made.wait(since, timeout, hosts)
        if not isinstance(found, int):
            raise self._wrong("what to wait from", found)
        return found

    def _all(self, found: Iterable[object], kind: type, what: str) -> None:
        for one in found:
            if not isinstance(one, kind):
                raise Unavailable(str(self._wrong(what, one)))


class AskedSecrets(_Asked):
    """See SecretProvider. Of what a stranger raised nobody knows what it holds: only its type is told."""

    def read(self, name: str, key: str) -> Secret:
        def read() -> Secret:
            try:
                found: Secret = self._made.read(name, key)
            except SkedError:
                raise
            except BaseException as error:  # noqa: BLE001
                raise Unavailable(f"{self._stranger.who} failed: {type(error).__name__}") from None
            return found

        try:
            return self._ask(read, WAIT_SECONDS)
        except PluginError as error:
            raise Unavailable(str(error)) from None

    def problems(self) -> list[str]:
        return [str(one) for one in self._ask(lambda: list(self._made.problems()), WAIT_SECONDS)]
