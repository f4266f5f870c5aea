"""All that a store holds."""

from __future__ import annotations

from sked_core.interfaces.store import Store


def contents(store: Store) -> dict[str, bytes]:
    """The value of every key."""
    return {key: entry.value for key, entry in store.read("").entries.items()}
