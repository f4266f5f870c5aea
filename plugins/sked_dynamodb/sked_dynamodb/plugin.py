"""What this package offers. Nothing heavy is imported before it is used."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Store, hookimpl


def open_store(url: str) -> Store:
    """The store in the table ``dynamodb://region/table``; see the README for what is read from the environment."""
    from sked_dynamodb.store import DynamoStore

    return DynamoStore(url)


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return {"dynamodb": open_store}
