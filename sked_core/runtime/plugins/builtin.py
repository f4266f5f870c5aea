"""What sked-core itself offers, through the same hooks as any plugin. Heavy modules load in the factories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sked_core.interfaces.hookspecs import hookimpl

if TYPE_CHECKING:
    from sked_core.interfaces.health import HealthContext, HealthProvider
    from sked_core.interfaces.scheduler import Scheduler
    from sked_core.interfaces.secrets import SecretContext, SecretProvider
    from sked_core.interfaces.store import Store


def _default_scheduler() -> Scheduler:
    from sked_core.logic.placement import spread

    return spread()


def _memory(url: str) -> Store:
    from sked_core.runtime.stores.memory import memory_store

    return memory_store(url)


def _embedded(url: str) -> Store:
    from sked_core.runtime.stores.embedded import embedded_store

    return embedded_store(url)


def _probes(context: HealthContext) -> HealthProvider:
    from sked_core.runtime.health.probes import ProbeHealth

    return ProbeHealth(context)


def _secret_files(context: SecretContext) -> SecretProvider:
    from sked_core.runtime.secrets.files import SecretFiles

    return SecretFiles(context)


def _secret_variables(context: SecretContext) -> SecretProvider:
    from sked_core.runtime.secrets.variables import SecretVariables

    return SecretVariables(context)


@hookimpl
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:
    return {"default": _default_scheduler}


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return {"memory": _memory, "sqlite": _embedded}


@hookimpl
def sked_health() -> Mapping[str, Callable[[HealthContext], HealthProvider]]:
    return {"probes": _probes}


@hookimpl
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:
    return {"file": _secret_files, "environment": _secret_variables}
