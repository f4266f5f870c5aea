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
    """Executors by the ``type`` that containers name.

    Asked once in every process that needs plugins. An agent makes one executor of each type and keeps it until it
    ends; commands and schedulers make one just to validate manifests, on a folder that does not exist: no factory may
    do more than remember its context.
    """


@hookspec
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:  # type: ignore[empty-body]
    """Schedulers by the name that services give in ``scheduler``.

    A scheduler process makes each of them once, at the first service that asks for it, and commands that look ahead
    (`sked plan`, `sked simulate`, `sked replay`) make their own.
    """


@hookspec
def sked_storage() -> Mapping[str, Callable[[str], Store]]:  # type: ignore[empty-body]
    """Stores by the scheme of their URL; the factory is given the whole URL.

    Called once by whatever process uses the store. It raises InvalidValue for a URL that can't be; that the engine does
    not answer is told by the first call, as Unavailable.
    """


@hookspec
def sked_health() -> Mapping[str, Callable[[HealthContext], HealthProvider]]:  # type: ignore[empty-body]
    """Health providers by the scheme of the store that they go with. Stores without one use built-in probes.

    Every agent makes one, to register its tasks, and every process that wants to know how tasks are: with ``host``
    empty, and then it only reads.
    """


@hookspec
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:  # type: ignore[empty-body]
    """Providers of secrets by the name that policies and manifests give in ``provider``.

    Made by the agent, one for each that its policy names, with the settings that stand there.
    """


@hookspec
def sked_commands(cli: click.Group) -> None:
    """Add commands to the command line: ``cli.add_command(...)``. ``click.pass_obj`` gives them an ``Invocation``.

    Called when a command is asked for that Sked does not know, and by whatever lists all commands. A command that
    exists can't be replaced.
    """


@hookspec
def sked_event(event: Event) -> None:
    """Something was decided or happened, in this process. Return soon; what it raises is logged once and ignored.

    Called after the event stands in the store, one event after the other, in a thread of its own where a scheduler or
    an agent tells it, and before a command ends that told it.
    """


@hookspec
def sked_problems() -> Sequence[str]:  # type: ignore[empty-body]
    """What keeps the plugin from what it was set up for on this host, such as mistakes in a file of its own.

    A line for each. Asked by `sked doctor`, and by agents and schedulers when they start, which warn and go on. Return
    soon, and ask no network. Mind secrets: it is shown.
    """


@hookspec
def sked_samples() -> Sequence[Sample]:  # type: ignore[empty-body]
    """What `sked plugins check` tries the plugin with. Called for nothing else: import `sked_core.testing` in it.

    One sample for each thing that the plugin offers. What has none is reported as not tried.
    """
