"""What the kits need in order to try a plugin, which only its author can know.

A plugin offers its samples by the hook ``sked_samples``, and its own tests name the same ones::

    class TestPages(ExecutorContract):
        sample = PAGES

What a sample leaves out is not tried, and every report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sked_core.interfaces.executor import Executor, ExecutorContext
from sked_core.interfaces.health import HealthContext, HealthProvider
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.secrets import SecretProvider
from sked_core.interfaces.store import Store

Spec = Mapping[str, Any]
"""What stands under ``executor`` in a container."""
Keep = Callable[[str, str | None], None]
"""``keep(name, value)`` has the secret hold the value from now on, ``keep(name, None)`` has there be none."""
Needs = Callable[[], str]
"""What lacks on this machine, or in its environment, for a sample to be tried; empty where nothing does. Else it is
reported as not tried, with the reason ``needs …``, which is this text. Asked before a kit begins."""
Clear = Callable[[Path], None]
"""Called after each test, once all that it opened is closed, with the folder that ``fresh`` was given: takes away what
the test left behind elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSample:
    """``make``: the executor's factory. ``type``: the name that it is offered under. ``stays``: a spec whose container
    runs until it is stopped. ``wrong``: specs that ``validate`` must refuse."""

    type: str
    make: Callable[[ExecutorContext], Executor]
    stays: Spec
    wrong: Sequence[Spec]
    script: Callable[[str], Spec] | None = None
    """The spec of a container that runs ``sh -c SCRIPT``: ends, environment, output and leftovers are tried with it."""
    unstartable: Spec | None = None
    """A spec that is valid, and can be started on no host."""
    denied: Spec | None = None
    """A spec that is valid, and refused where the policy's section of this executor says nothing."""
    listens: Callable[[int], Spec] | None = None
    """The spec of a container that listens on this TCP port of the host, which is its task's as well."""
    limits: Sequence[str] = ()
    """What is limited on the host that the tests run on: ``memory`` (MB, as a container asks for), ``pids``."""
    census: Callable[[ExecutorContext], int] | None = None
    """How many containers there are of this host and store, dead, half made or running, looked up past the executor."""
    hung_engine: Callable[[], AbstractContextManager[object]] | None = None
    """While this context lasts the engine answers nothing."""
    lost_answers: Callable[[], AbstractContextManager[object]] | None = None
    """While this context lasts the engine starts what it is told to, and its answers are lost."""
    unseen: str = ""
    """Why nobody can see what it looks at to judge a spec, such as that a program is asked; that is not tried then."""
    outlives: bool = True
    """Containers live on when the process ends that started them, as they should; False is for an engine that a test
    has in its own process."""
    needs: Needs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSample:
    """``name``: that it is offered under. ``make``: its factory. Schedulers are tried without a sample as well.
    ``unseen``: why nobody can see what it looks at, such as that a program is asked; that is not tried then."""

    name: str
    make: Callable[[], Scheduler]
    unseen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSample:
    """``scheme``: of its URLs. ``fresh``: given an empty folder, opens clients of one store that is empty at first."""

    scheme: str
    fresh: Callable[[Path], Callable[[], Store]]
    too_large: int = 0
    """Bytes that are more than it takes as one value; 0: twice what Sked writes at most, and one more."""
    needs: Needs | None = None
    clear: Clear | None = None
    end: Callable[[], None] | None = None
    """Called once after all tests: takes away what they had in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPlace:
    """``open``: opens clients of one store, which is empty at first. ``url``: the store's."""

    open: Callable[[], Store]
    url: str
    outage: Callable[[], AbstractContextManager[object]] | None = None
    """While this context lasts nothing answers at ``url``. None: the provider asks nothing but the store, which the kit
    takes away by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSample:
    """``scheme``: of the stores that it goes with. ``make``: its factory. ``fresh``: given an empty folder, where it is
    tried."""

    scheme: str
    make: Callable[[HealthContext], HealthProvider]
    fresh: Callable[[Path], HealthPlace]
    needs: Needs | None = None
    clear: Clear | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSample:
    """``name``: that it is offered under. ``fresh``: given an empty folder, a provider and how to keep secrets in it.
    ``fields``: whether its secrets have keys; ``keep`` then writes the field ``value``. ``versions``: whether it tells
    when one changes."""

    name: str
    fresh: Callable[[Path], tuple[SecretProvider, Keep]]
    fields: bool = False
    versions: bool = True
    outage: Callable[[Path], AbstractContextManager[object]] | None = None
    """Given the folder of ``fresh``: while this context lasts nobody can tell whether there is a secret."""
    needs: Needs | None = None
    clear: Clear | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSample:
    """``plugin``: the module with the hooks, as the entry point names it. Events and commands are tried with it;
    `sked plugins check` needs no sample for that."""

    plugin: str


Sample = ExecutorSample | SchedulerSample | StoreSample | HealthSample | SecretSample | PackageSample
