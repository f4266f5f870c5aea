"""The plugins by what they offer. A broken one is a row with an error, and fails only whoever needs it."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from sked_core import __version__
from sked_core.errors import PluginError, SkedError
from sked_core.interfaces.executor import Executor, ExecutorContext
from sked_core.interfaces.hookspecs import API_VERSION
from sked_core.model.first_party import install_hint
from sked_core.model.spec import plain
from sked_core.runtime.plugins import builtin
from sked_core.runtime.plugins.aside import Hung, Stranger, failed
from sked_core.runtime.plugins.known_types import know_types
from sked_core.runtime.plugins.loading import (
    BROKEN,
    DEADLINE_SECONDS,
    Factory,
    Plugin,
    found,
    loaded,
    register,
    watched,
)
from sked_core.runtime.plugins.rules import CORE, PluginRules, normal
from sked_core.strangers import strangers_turn

if TYPE_CHECKING:
    import click
    import pluggy

    from sked_core.interfaces.health import HealthContext, HealthProvider
    from sked_core.interfaces.scheduler import Scheduler
    from sked_core.interfaces.secrets import SecretContext, SecretProvider
    from sked_core.interfaces.store import Store
    from sked_core.model.types import Event

log = logging.getLogger("sked.plugins")
EVENT_SECONDS = 30.0
"""How long a plugin may take with one event, while others wait for theirs."""
MAX_PROBLEMS = 50
"""That one plugin is heard with."""
PROBES = "probes"
"""The health provider for every store that has none of its own."""


@dataclass(frozen=True, slots=True)
class PluginRow:
    """One line of ``sked plugins``. ``api``: the majors of the plugin API that it is for; ``state``: ok, broken, denied
    or other-api, and ``error`` says why it is not ok; ``seconds`` that loading it took; ``provides``:
    ``executor docker``, …; ``warnings``: what is odd of it, though it works."""

    name: str
    package: str
    version: str
    api: str
    state: str
    seconds: float
    provides: tuple[str, ...]
    error: str
    warnings: tuple[str, ...] = ()
    module: str = ""
    hooks: tuple[str, ...] = ()


class Plugins:
    """All that is installed, by name. Building one imports every plugin: do it only where one is needed."""

    def __init__(
        self, points: Iterable[EntryPoint], rules: PluginRules | None = None, deadline: float = DEADLINE_SECONDS
    ) -> None:
        """``points``: entry points whose ``load()`` gives a module (or object) with hooks; ``deadline``: seconds that
        each of them has for that."""
        core = Plugin("core", CORE, __version__, "sked_core.runtime.plugins.builtin", (API_VERSION,))
        register(core, builtin)
        self.rules = rules or PluginRules()
        self._deadline = deadline
        self._listeners: dict[tuple[str, str], Stranger] = {}
        self._strangers: dict[str, Stranger] = {}
        self._plugins = [core, *loaded(list(points), self.rules, deadline)]
        know_types()

    @classmethod
    def load(cls, rules: PluginRules | None = None) -> Plugins:
        """Everything that is installed in this environment and that ``rules`` allow; None: those of the environment.
        Never raises for a plugin's sake."""
        return cls(found(), rules or PluginRules.of_environment())

    def rows(self) -> list[PluginRow]:
        """What ``sked plugins`` shows, the built-in one first, then by name."""
        return [self._row(plugin) for plugin in self._plugins]

    def lacking(self) -> list[str]:
        """Of each package that is required and can't be used, which it is and why, and what to do."""
        required = self.rules.require
        if required is None:
            return []
        lines = []
        for package in sorted(required.packages - {CORE}):
            rows = [row for row in self.rows() if normal(row.package) == package]
            faults = [f"{row.state}: {row.error}" for row in rows if row.error]
            if faults or not rows:
                why = "; ".join(faults) or f"not installed, or no plugin: pip install {package}"
                lines.append(f"{package} is required ({required.origin}), but {why}")
        return lines

    def unmatched(self) -> list[str]:
        """Of each package that is allowed or denied but is none of a plugin here, which may have been meant: a rule
        with a typo keeps nobody out."""
        by_name = {one.name: normal(one.package) for one in self._plugins}
        here, lines = set(by_name.values()) | {CORE}, []
        for rule in filter(None, (self.rules.allow, self.rules.deny)):
            for package in sorted(rule.packages - here):
                near = difflib.get_close_matches(package, here - rule.packages, n=1, cutoff=0.7)  # all begin with sked-
                meant = by_name.get(package) or next(iter(near), "")
                said = f"{rule.origin} names {package}, which is no package of a plugin here"
                lines.append(f'{said}, did you mean "{meant}"?' if meant else said)
        return lines

    def _row(self, plugin: Plugin) -> PluginRow:
        errors = [plugin.refused] if plugin.refused else list(plugin.errors)
        for kind, name in plugin.offers:
            claimants = self._claimants(kind, name)
            if plugin not in claimants:
                errors.append(f"{kind} {name} is built in: this one is not used")
            elif len(claimants) > 1:
                errors.append(f"{kind} {name} is offered by {_and(claimants)}")
        state = plugin.state if plugin.refused or not errors else BROKEN
        provides = tuple(sorted(f"{kind} {name}" for kind, name in plugin.offers))
        return PluginRow(
            name=plugin.name,
            package=plugin.package,
            version=plugin.version,
            api=", ".join(plugin.api),
            state=state,
            seconds=round(plugin.seconds, 3),
            provides=provides,
            error="; ".join(errors),
            warnings=tuple(plugin.warnings),
            module=plugin.module,
            hooks=plugin.hook_names(),
        )

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

    def stranger(self, who: str) -> Stranger:
        """The one that is asked as ``who``: where it hung, all that ask it leave it alone, however often it is made."""
        return self._strangers.setdefault(who, Stranger(who))

    def add_commands(self, cli: click.Group) -> dict[str, str]:
        """Let every plugin add its commands: whose each of them is, for people. One that replaces a command that exists
        gets an error instead."""
        whose: dict[str, str] = {}
        for plugin in self._plugins:
            if plugin.hooks is not None and plugin.hooks.sked_commands.get_hookimpls():
                before = set(cli.commands)
                self._add_commands(plugin, plugin.hooks, cli)
                whose |= dict.fromkeys(set(cli.commands) - before, str(plugin))
        return whose

    def _add_commands(self, plugin: Plugin, hooks: pluggy.HookRelay, cli: click.Group) -> None:
        before = dict(cli.commands)
        hook = "sked_commands"

        def add() -> None:
            plugin.attempt(hook, lambda: hooks.sked_commands(cli=cli))

        hangs, told = watched(plugin.name, add, self._deadline)
        if hangs:
            plugin.errors.append(f"{hook} took longer than {self._deadline:g} s")
        plugin.warnings += told
        added = dict(cli.commands)
        taken = sorted(name for name, command in before.items() if added.get(name) is not command)
        plugin.errors.extend(f"command {name} exists already" for name in taken)
        wrong = [name for name, command in added.items() if not (type(name) is str and hasattr(command, "main"))]
        plugin.errors.extend(plain(f"{hook}: {name!r:.80} is no command") for name in wrong)
        cli.commands = {name: command for name, command in added.items() if name not in wrong} | before

    def observe(self, event: Event) -> None:
        """Tell every plugin that has the hook. What one of them raises is logged, the first time, and goes no further;
        one that hangs is left alone for a while, and hears nothing meanwhile.

        It takes as long as the plugins take: loops go by runtime.delivery instead.
        """
        for plugin in self._plugins:
            if plugin.hooks is None or not (hook := plugin.hooks.sked_event).get_hookimpls():
                continue
            key = (plugin.package, plugin.name)  # the name alone may be that of two
            listener = self._listeners.setdefault(key, Stranger(f"sked_event of plugin {plugin}"))
            try:
                listener.ask(lambda hook=hook: hook(event=event), seconds=EVENT_SECONDS)  # type: ignore[misc]
            except Hung as hung:
                log.warning("%s", hung)
            except SkedError as error:
                if not plugin.deaf:
                    plugin.deaf = True
                    log.warning("%s (further failures are not logged)", error)

    def problems(self) -> list[tuple[str, str]]:
        """What each plugin says that keeps it from its work on this host: its package, and a line."""
        found = []
        for plugin in self._plugins:
            if plugin.hooks is None or not (hook := plugin.hooks.sked_problems).get_hookimpls():
                continue

            def asked(hook: Callable[[], list[list[str]]] = hook) -> list[str]:
                return [line for answer in hook() for line in answer]

            try:
                said = self.stranger(f"sked_problems of plugin {plugin}").ask(asked)
            except SkedError as error:
                said = [str(error)]
            found += [(plugin.package, plain(line[:500])) for line in said[:MAX_PROBLEMS] if type(line) is str]
        return found

    def origin(self, kind: str, name: str) -> str:
        """The package, with its version, that offers ``name``; empty if none does."""
        return _and(self._claimants(kind, name))

    def _claimants(self, kind: str, name: str) -> list[Plugin]:
        """Whose the name is: of what is built in alone where that has it, otherwise of all that offer it."""
        if (kind, name) in self._plugins[0].offers:
            return self._plugins[:1]
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

        def make(*args: Any) -> Any:
            what = f"{kind} {name} of {plugin}"
            if kind == "storage" or plugin is self._plugins[0]:  # a store may be bound to the thread that opens it
                try:
                    with strangers_turn():
                        return factory(*args)
                except (SkedError, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    raise PluginError(str(failed(what, error)), hint="see `sked plugins`") from error
            try:
                return self.stranger(what).ask(lambda: factory(*args))
            except Hung as hung:  # told as any other failure: who asks keeps count of those that hang on its own work
                raise PluginError(str(hung), hint="see `sked plugins`") from None
            except PluginError as error:
                error.hint = error.hint or "see `sked plugins`"
                raise

        def made(*args: Any) -> Any:
            one = make(*args)
            know_types()  # those of modules that were imported only now
            return one

        return made

    def _advice(self, kind: str, name: str) -> str:
        for row in self.rows():
            if row.error and (row.name == name or row.package == f"sked-{name}"):
                return unused(row)
        usable = ", ".join(self.names(kind)) or "none"
        unknown = [f"not imported: {one} ({one.refused})" for one in self._plugins if one.refused]
        return "\n".join([install_hint(kind, name), f"installed: {usable}", *unknown])


def unused(row: PluginRow) -> str:
    """What is said of a plugin that is there and can't be used."""
    how = row.state if row.state == BROKEN else "not imported"
    return f"{row.package} {row.version} is installed but {how}: {row.error}"


def _and(plugins: Iterable[Plugin]) -> str:
    return " and by ".join(str(plugin) for plugin in plugins)
