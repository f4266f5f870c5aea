"""What this package offers. Nothing heavy is imported before it is used."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import Store, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample

SCHEMES = ("etcd", "etcd+http", "etcd+https")


def open_store(url: str) -> Store:
    """The store at ``etcd://host:port,…``; see the README for what is read from the environment."""
    from sked_etcd.store import EtcdStore

    return EtcdStore(url)


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return dict.fromkeys(SCHEMES, open_store)


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_etcd.samples import samples

    return samples()
