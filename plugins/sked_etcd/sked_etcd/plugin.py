"""What this package offers. Nothing heavy is imported before it is used."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Store, hookimpl

SCHEMES = ("etcd", "etcd+http", "etcd+https")


def open_store(url: str) -> Store:
    """The store at ``etcd://host:port,…``; see the README for what is read from the environment."""
    from sked_etcd.store import EtcdStore

    return EtcdStore(url)


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return dict.fromkeys(SCHEMES, open_store)
