"""What this package offers. Nothing heavy is imported before it is used."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import HealthContext, HealthProvider, Store, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample

SCHEMES = ("consul", "consul+http", "consul+https")


def open_store(url: str) -> Store:
    """The store at ``consul://host:port``; see the README for what is read from the environment."""
    from sked_consul.store import ConsulStore

    return ConsulStore(url)


def open_health(context: HealthContext) -> HealthProvider:
    """The health provider that goes with the store."""
    from sked_consul.health import ConsulHealth

    return ConsulHealth(context)


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return dict.fromkeys(SCHEMES, open_store)


@hookimpl
def sked_health() -> Mapping[str, Callable[[HealthContext], HealthProvider]]:
    return dict.fromkeys(SCHEMES, open_health)


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_consul.samples import samples

    return samples()
