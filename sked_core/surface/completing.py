"""Live names for shells that complete them: from the store, quickly, and in silence where it is away.

What these functions need is imported by them: every command names them. The store is asked in a thread of its own, and
not waited for any longer than people wait for a key.
"""

from __future__ import annotations

from collections.abc import Callable

import click

PATIENCE_SECONDS = 2.0
"""Within which the store has to answer."""
MAX_NAMES = 2000
"""More than that nobody reads."""

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _names(*kinds: str) -> Complete:
    """Names of these kinds, one kind after another."""
    return lambda ctx, _param, incomplete: _asked(ctx, incomplete, *kinds)


def _with_kinds(*kinds: str) -> Complete:
    """``KIND/NAME``: kinds first, names once there is a kind."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        kind, slash, name = incomplete.partition("/")
        if not slash:
            begin = [one for one in kinds if one.startswith(incomplete)]
            if len(begin) != 1:
                return [f"{one}/" for one in begin]
            kind, name = begin[0], ""  # shells would put a space behind the only one
        return [f"{kind}/{found}" for found in _asked(ctx, name, kind)] if kind in kinds else []

    return complete


services, tasks, hosts, clusters = _names("service"), _names("task"), _names("host"), _names("cluster")
NAMES = {"service": services, "task": tasks, "host": hosts, "cluster": clusters}
services_and_tasks = _names("service", "task")
things = _with_kinds("service", "task", "host", "cluster", "task_definition")
"""Of anything that can be described."""
declared = _with_kinds("service", "cluster", "task_definition")
"""Of what can be deleted."""


def _asked(ctx: click.Context, incomplete: str, *kinds: str) -> list[str]:
    """The names of these kinds that begin with ``incomplete``; none if the store does not say so in time."""
    import logging
    import threading

    from sked_core.client.naming import names_of
    from sked_core.client.session import open_session
    from sked_core.errors import SkedError
    from sked_core.runtime.plugins.registry import Plugins
    from sked_core.surface.options import settings_of

    logging.disable()
    found: list[str] = []

    def ask() -> None:
        try:
            with open_session(settings, "completion") as sked:
                for kind in kinds:
                    found.extend(names_of(sked.store, kind, incomplete))
        except (SkedError, OSError):
            found.clear()

    try:
        settings = settings_of(ctx)
    except (SkedError, OSError):
        return []
    Plugins.load(settings.plugins)  # which is not the store's time
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return [] if thread.is_alive() else found[:MAX_NAMES]
