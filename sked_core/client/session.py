"""The way to a store: the chosen one, open, with the plugins that go with it, and who is using it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sked_core.client.notices import notice

if TYPE_CHECKING:
    from sked_core.client.settings import Setting, Settings
    from sked_core.errors import SkedError
    from sked_core.interfaces.health import HealthProvider
    from sked_core.interfaces.store import Store
    from sked_core.model.policy import Policy
    from sked_core.runtime.journal import Journal
    from sked_core.runtime.plugins.registry import Plugins

T = TypeVar("T")
ATTEMPTS = 5
"""Somebody else may write the same objects at the same time; more often than this in a row is a conflict."""


@dataclass(frozen=True, slots=True)
class Session:
    """The chosen store, open, with its plugins. ``who``: what events and marks call whoever acts."""

    store: Store
    plugins: Plugins
    settings: Settings
    who: str

    def health(
        self,
        host: str = "",
        store_uid: str = "",
        policy: Policy | None = None,
        mask: Callable[[str, str], str] = lambda _, text: text,
    ) -> HealthProvider:
        """The provider that goes with the store; ``host``: whose tasks it registers, empty to read only; ``policy``:
        of that host. ``mask`` as in HealthContext."""
        from sked_core.clock import SystemClock
        from sked_core.errors import PluginError
        from sked_core.interfaces.health import HealthContext
        from sked_core.runtime.plugins.asked import health
        from sked_core.runtime.plugins.backend import scheme_of
        from sked_core.runtime.plugins.registry import PROBES

        url = self.settings.backend.value
        known: dict[str, Any] = {"policy": policy} if policy is not None else {}
        known["probes"] = self.plugins.health(PROBES)
        context = HealthContext(self.store, url, host, SystemClock(), store_uid, mask=mask, **known)
        with _with_origin(self.settings.backend, PluginError):
            return health(self.plugins, scheme_of(url), context)

    def silent(self) -> Mapping[str, str]:
        """Hosts that are alive for the store but whose agents give this process no answer, with since when (RFC 3339):
        none, unless it has looked."""
        return {}

    def journal(self) -> Journal:
        """The events of one act: ``put`` goes into the commit that makes them true, ``tell`` after it."""
        from sked_core.clock import SystemClock
        from sked_core.runtime.journal import Journal

        # Two acts of one person at the same time must not take the same key.
        source = f"{self.who}-{secrets.token_hex(4)}"
        return Journal(self.store, SystemClock(), self.who, self.plugins.observe, source=source)


def load_plugins(settings: Settings, *, required: bool = False) -> Plugins:
    """All plugins that the settings allow; those that are broken are noticed, since what they offer will be missed.

    So are those that lack though they are required; with ``required`` InvalidConfig is raised instead, and what plugins
    say that keeps them from their work is noticed.
    """
    from sked_core.runtime.plugins.loading import BROKEN, DENIED
    from sked_core.runtime.plugins.registry import Plugins

    plugins = Plugins.load(settings.plugins)
    for row in plugins.rows():
        if row.error and row.state != DENIED:  # which was meant to be missed
            how = row.state if row.state == BROKEN else "not used"
            notice(f"warning: plugin {row.name} is {how}: {row.error} (see `sked plugins`)")
    lacking = plugins.lacking()
    if lacking and required:
        from sked_core.errors import InvalidConfig

        raise InvalidConfig("\n".join(lacking), hint="install or repair it, or require it no more; see `sked plugins`")
    lacking += [f"{package}: {line}" for package, line in plugins.problems()] if required else []
    for line in lacking:
        notice(f"warning: {line}")
    return plugins


@contextmanager
def open_session(settings: Settings, who: str, *, required: bool = False) -> Iterator[Session]:
    """Open the store for the ``with`` block. What is raised as Unavailable inside says which store was meant, and so
    does the lack of the store's plugin and a URL or prefix that can't be. ``required`` as in ``load_plugins``."""
    from sked_core.errors import InvalidValue, PluginError, Unavailable
    from sked_core.interfaces.store import check_key
    from sked_core.runtime.plugins.backend import open_store

    plugins = load_plugins(settings, required=required)
    with _with_origin(settings.prefix, InvalidValue):
        check_key(settings.prefix.value.rstrip("/") or "any")
    with _with_origin(settings.backend, Unavailable):
        with _with_origin(settings.backend, PluginError, InvalidValue):
            store = open_store(settings.backend.value, plugins, settings.prefix.value)
        try:
            yield Session(store=store, plugins=plugins, settings=settings, who=who)
        finally:
            store.close()


@contextmanager
def _with_origin(setting: Setting, *kinds: type[SkedError]) -> Iterator[None]:
    """What is raised as one of ``kinds`` inside says where it was chosen."""
    try:
        yield
    except kinds as error:
        if setting.origin:
            error.add_note(f"from: {setting.origin}")
        raise


def repeated(attempt: Callable[[], T]) -> T:
    """The result of ``attempt``, which is made anew when somebody else has written in between. Raises Conflict."""
    from sked_core.errors import Conflict

    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except Conflict:
            continue
    return attempt()
