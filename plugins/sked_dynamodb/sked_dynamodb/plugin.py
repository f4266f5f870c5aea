"""What this package offers. Nothing heavy is imported before it is used."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import Store, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


def open_store(url: str) -> Store:
    """The store in the table ``dynamodb://region/table``; see the README for what is read from the environment."""
    from sked_dynamodb.store import DynamoStore

    return DynamoStore(url)


@hookimpl
def sked_storage() -> Mapping[str, Callable[[str], Store]]:
    return {"dynamodb": open_store}


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_dynamodb.samples import samples

    return samples()
