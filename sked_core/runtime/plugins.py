"""Finds plugins and keeps them apart: a broken one is a row with an error, and fails only whoever needs it.

Every plugin gets a pluggy manager of its own, so that what one of them does wrong at registration or in a hook
can't reach another (pluggy's plain loader stops at the first that fails).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from sked_core import __version__
from sked_core.errors import PluginError, Problem, SkedError
from sked_core.interfaces import hookspecs
from sked_core.interfaces.executor import Executor, ExecutorContext
from sked_core.model.first_party import install_hint
from sked_core.model.rules import SpecChecker
from sked_core.model.spec import plain
from sked_core.runtime import builtin

if TYPE_CHECKING:
    import click

    from sked_core.interfaces.health import HealthContext, HealthProvider
    from sked_core.interfaces.scheduler import Scheduler
    from sked_core.interfaces.secrets import SecretContext, SecretProvider
    from sked_core.interfaces.store import Store
    from sked_core.model.types import Event

log = logging.getLogger("sked.plugins")
GROUP = "sked"
PROBES = "probes"
"""The health provider for every store that has none of its own."""

_HOOKS = {
    "executor": "sked_executors",
    "scheduler": "sked_schedulers",
    "storage": "sked_storage",
    "health": "sked_health",
    "secrets": "sked_secrets",
}
Factory = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class PluginRow:
    """One line of ``sked plugins``. ``provides``: ``executor docker``, …; ``error`` is empty when all is well."""

    name: str
    package: str
    version: str
    provides: tuple[str, ...]
    error: str


@dataclass(slots=True)
class _Plugin:
    name: str
    package: str
    version: str
    hooks: pluggy.HookRelay | None = None
    offers: dict[tuple[str, str], Factory] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    deaf: bool = False
    """Failed to take in an event, which was logged."""

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()

    def attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """The result of ``action``, code of the plugin; if it fails in any way, None and one more error.

        SystemExit is no reason to end either: only Ctrl-C passes.
        """
        try:
            return action()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever a stranger's code raises is the stranger's problem
            self.errors.append(plain(f"{what}: {_describe(error)}"))
            return None


class _Unusable:
    """Stands for an executor whose factory failed."""

    def __init__(self, error: SkedError) -> None:
        self._error = error

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        raise self._error

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        raise self._error


class Plugins:
    """All that is installed, by name. Building one imports every plugin: do it only where one is needed."""

    def __init__(self, found: Iterable[EntryPoint]) -> None:
        """``found``: entry points whose ``load()`` gives a module (or object) with hooks."""
        core = _Plugin("core", "sked-core", __version__)
        _register(core, lambda: builtin)
        self._plugins = [core]
        for entry_point in sorted(found, key=lambda point: (point.name, point.value)):
            package, version = _origin(entry_point)
            plugin = _Plugin(plain(entry_point.name), plain(package), plain(version))
            _register(plugin, entry_point.load)
            self._plugins.append(plugin)

    @classmethod
    def load(cls) -> Plugins:
        """Everything that is installed in this environment. Never raises for a plugin's sake."""
        return cls(entry_points(group=GROUP))

    def rows(self) -> list[PluginRow]:
        """What ``sked plugins`` shows, the built-in one first, then by name."""
        rows = []
        for plugin in self._plugins:
            clashes = [
                f"{kind} {name} is offered by {_and(claimants)}"
                for kind, name in plugin.offers
                if len(claimants := self._claimants(kind, name)) > 1
            ]
            provides = tuple(sorted(f"{kind} {name}" for kind, name in plugin.offers))
            errors = "; ".join(plugin.errors + clashes)
            rows.append(PluginRow(plugin.name, plugin.package, plugin.version, provides, errors))
        return rows

    def names(self, kind: str) -> tuple[str, ...]:
        """The names that can be used (claimed by one plugin only), sorted. ``kind``: executor, scheduler, …"""
        offered = {name for plugin in self._plugins for of_kind, name in plugin.offers if of_kind == kind}
        return tuple(sorted(name for name in offered if len(self._claimants(kind, name)) == 1))

    def executor(self, name: str) -> Callable[[ExecutorContext], Executor]:
        """The factory of an executor. Raises PluginError with what to install; so does a factory that fails."""
        return self._factory("executor", name)

    def scheduler(self, name: str) -> Callable[[], Scheduler]:
        """The factory of a scheduler. Raises PluginError as ``executor`` does."""
        return self._factory("scheduler", name)

    def storage(self, scheme: str) -> Callable[[str], Store]:
        """The factory of stores with this URL scheme. Raises PluginError as ``executor`` does."""
        return self._factory("storage", scheme)

    def health(self, scheme: str) -> Callable[[HealthContext], HealthProvider]:
        """The factory of the health provider that goes with stores of this scheme: built-in probes by default."""
        own = self._claimants("health", scheme)
        return self._factory("health", scheme if own else PROBES)

    def secrets(self, name: str) -> Callable[[SecretContext], SecretProvider]:
        """The factory of a provider of secrets. Raises PluginError as ``executor`` does."""
        return self._factory("secrets", name)

    def spec_checkers(self) -> Mapping[str, SpecChecker]:
        """The executors by type, made only to validate manifests; one that can't be made says so when it is asked."""
        context = ExecutorContext(host="", store_uid="", state_dir=Path(os.devnull))  # nothing can be created there
        checkers: dict[str, SpecChecker] = {}
        for name in self.names("executor"):
            try:
                checkers[name] = self.executor(name)(context)
            except SkedError as error:
                checkers[name] = _Unusable(error)
        return checkers

    def add_commands(self, cli: click.Group) -> None:
        """Let every plugin add its commands. One that replaces a command that exists gets an error instead."""
        for plugin in self._plugins:
            if plugin.hooks is None:
                continue
            before = dict(cli.commands)
            plugin.attempt("sked_commands", lambda hooks=plugin.hooks: hooks.sked_commands(cli=cli))  # type: ignore[misc]
            taken = sorted(name for name, command in before.items() if cli.commands.get(name) is not command)
            cli.commands.update({name: before[name] for name in taken})
            plugin.errors.extend(f"command {name} exists already" for name in taken)

    def observe(self, event: Event) -> None:
        """Tell every plugin that has the hook. What one of them raises is logged, the first time, and goes no further.

        It takes as long as the plugins take: loops go by runtime.delivery instead.
        """
        for plugin in self._plugins:
            if plugin.hooks is None or not plugin.hooks.sked_event.get_hookimpls():
                continue
            failures = len(plugin.errors)
            plugin.attempt("sked_event", lambda hooks=plugin.hooks: hooks.sked_event(event=event))  # type: ignore[misc]
            if len(plugin.errors) > failures:
                error = plugin.errors.pop()
                if not plugin.deaf:
                    plugin.deaf = True
                    log.warning("plugin %s: %s (further failures are not logged)", plugin, error)

    def origin(self, kind: str, name: str) -> str:
        """The package, with its version, that offers ``name``; empty if none does."""
        return _and(self._claimants(kind, name))

    def _claimants(self, kind: str, name: str) -> list[_Plugin]:
        return [plugin for plugin in self._plugins if (kind, name) in plugin.offers]

    def _factory(self, kind: str, name: str) -> Factory:
        claimants = self._claimants(kind, name)
        if not claimants:
            raise PluginError(f'no {kind} "{plain(name[:80])}" is installed', hint=self._advice(kind, name))
        if len(claimants) > 1:
            raise PluginError(
                f"{kind} {name} is offered by {_and(claimants)}", hint="uninstall one of them: pip uninstall NAME"
            )
        plugin = claimants[0]
        factory = plugin.offers[kind, name]

        def guarded(*args: Any) -> Any:
            try:
                return factory(*args)
            except (SkedError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise PluginError(
                    f"{kind} {name} of {plugin} failed: {plain(_describe(error))}", hint="see `sked plugins`"
                ) from error

        return guarded

    def _advice(self, kind: str, name: str) -> str:
        for plugin in self._plugins:
            if plugin.errors and (plugin.name == name or plugin.package == f"sked-{name}"):
                return f"{plugin} is installed but broken: {plugin.errors[0]}"
        usable = ", ".join(self.names(kind)) or "none"
        return f"{install_hint(kind, name)}\ninstalled: {usable}"


def _register(plugin: _Plugin, load: Callable[[], Any]) -> None:
    """Import the plugin and ask each hook what it offers; every failure becomes an error of the plugin."""
    module = plugin.attempt("import", load)
    if module is None:
        plugin.errors = plugin.errors or ["import: the entry point gives None"]
        return
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    if plugin.attempt("hooks", lambda: manager.register(module, name=plugin.name)) is None:
        return
    plugin.attempt("hooks", manager.check_pending)
    plugin.hooks = manager.hook
    for kind, hook in _HOOKS.items():
        caller = getattr(manager.hook, hook)
        if not caller.get_hookimpls():
            continue
        failures = len(plugin.errors)
        answers = plugin.attempt(hook, caller)
        if len(plugin.errors) == failures:
            _collect(plugin, kind, hook, answers)


def _collect(plugin: _Plugin, kind: str, hook: str, answers: list[Any]) -> None:
    # pluggy drops an answer of None, so that an empty list is a hook that returned nothing.
    for answer in answers or [None]:
        if not isinstance(answer, Mapping):
            plugin.errors.append(f"{hook} returned {type(answer).__name__}, not a mapping from name to factory")
            continue
        for name, factory in (plugin.attempt(hook, lambda answer=answer: dict(answer)) or {}).items():  # type: ignore[misc]
            if isinstance(name, str) and name and callable(factory):
                plugin.offers[kind, name] = factory
            else:
                plugin.errors.append(plain(f"{hook}: {name!r:.80} is not a name with a factory"))


def _origin(entry_point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point came from; metadata of others may be damaged."""
    dist = getattr(entry_point, "dist", None)
    try:
        return (str(dist.name), str(dist.version)) if dist else (entry_point.value.partition(".")[0], "")
    except Exception:  # noqa: BLE001  a package without readable metadata still has a plugin to report on
        return entry_point.value.partition(".")[0], ""


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300].rstrip(": ")


def _and(plugins: Iterable[_Plugin]) -> str:
    return " and by ".join(str(plugin) for plugin in plugins)
