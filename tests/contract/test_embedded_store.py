"""The embedded store passes the contract, as one client and as several of one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sked_core.runtime.embedded import EmbeddedStore
from sked_core.testing.stores import OpenStore, StoreContract


class TestEmbeddedStore(StoreContract):
    short_ttl = 0.3

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: EmbeddedStore(tmp_path / "state" / "sked.db")
