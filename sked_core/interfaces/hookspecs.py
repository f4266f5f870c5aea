"""The hooks: what a plugin package may offer. Project and entry-point group: ``sked``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from sked_core.interfaces.executor import Executor, ExecutorContext
    from sked_core.interfaces.health import HealthContext, HealthProvider
    from sked_core.interfaces.scheduler import Scheduler
    from sked_core.interfaces.secrets import SecretContext, SecretProvider
    from sked_core.interfaces.store import Store
    from sked_core.model.types import Event
    from sked_core.testing.samples import Sample

API_VERSION = "1.0"
"""Of all that plugins may import (sked_core.plugin) and offer (the hooks here). The minor goes up with what is added,
the major with what is taken away or changed; each major has an entry-point group of its own."""

hookspec = pluggy.HookspecMarker("sked")
hookimpl = pluggy.HookimplMarker("sked")


@hookspec
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:  # type: ignore[empty-body]
    """Executors by the ``type`` that containers name."""


@hookspec
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:  # type: ignore[empty-body]
    """Schedulers by the name that services give in ``scheduler``."""


@hookspec
def sked_storage() -> Mapping[str, Callable[[str], Store]]:  # type: ignore[empty-body]
    """Stores by the scheme of their URL; the factory is given the whole URL."""


@hookspec
def sked_health() -> Mapping[str, Callable[[HealthContext], HealthProvider]]:  # type: ignore[empty-body]
    """Health providers by the scheme of the store that they go with. Stores without one use built-in probes."""


@hookspec
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:  # type: ignore[empty-body]
    """Providers of secrets by the name that policies and manifests give in ``provider``."""


@hookspec
def sked_commands(cli: click.Group) -> None:
    """Add commands to the command line: ``cli.add_command(...)``. ``click.pass_obj`` gives them an ``Invocation``."""


@hookspec
def sked_event(event: Event) -> None:
    """Something was decided or happened, in this process. Return soon; what it raises is logged once and ignored."""


@hookspec
def sked_samples() -> Sequence[Sample]:  # type: ignore[empty-body]
    """What `sked plugins check` tries the plugin with. Called for nothing else: import `sked_core.testing` in it."""
