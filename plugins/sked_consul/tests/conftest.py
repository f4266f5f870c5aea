"""A Consul that ends leases sooner than others do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.consul import PrivateConsul


@pytest.fixture(scope="session")
def brisk_consul(tmp_path_factory: pytest.TempPathFactory, consul_binary: str) -> Iterator[PrivateConsul]:
    """A server for this session's own use whose leases may be as short as a second. Leave it running."""
    agent = PrivateConsul(consul_binary, tmp_path_factory.mktemp("consul"), {"session_ttl_min": "1s"})
    agent.start()
    yield agent
    agent.kill()
