"""What a host says of itself: that it is here, by a key that lives as long as its agent's lease."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sked_core.model import keys
from sked_core.runtime.agent.host_presence import HostPresence
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_host
from sked_core.testing.clock import FakeClock

LIVE = keys.live("h1")


class World:
    """A host on a store whose leases end by the machine's clock: none does within these tests by itself."""

    def __init__(self) -> None:
        self.memory, self.clock = MemoryStore(), FakeClock()
        self.keeper = LeaseKeeper(self.memory, self.clock)
        self.presence = HostPresence(
            self.memory,
            host="h1",
            agent="agent",
            describe=lambda: a_host("h1").host,
            clock=self.clock,
            keeper=self.keeper,
            ready=lambda: None,
        )
        self.presence.paused.clear()

    def lease(self) -> str:
        """The one that the key is bound to."""
        entry = self.memory.read(LIVE).entries.get(LIVE)
        return entry.lease if entry else ""


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.memory.close()


def test_who_was_cut_off_and_is_back_before_its_lease_has_ended_goes_on_with_it(world: World) -> None:
    world.presence.announce()
    first = world.lease()
    world.clock.advance(12)
    world.presence.announce()
    assert world.lease() == first != ""
    assert len(world.memory._data.expiry) == 1, "no lease is left behind for as long as it lasts"


def test_who_comes_back_when_its_lease_has_ended_takes_another_one(world: World) -> None:
    world.presence.announce()
    first = world.lease()
    world.keeper.lease().revoke()
    world.clock.advance(12)
    world.presence.announce()
    assert world.lease() not in ("", first)


def test_who_hears_that_its_lease_has_ended_is_back_at_once_and_not_with_its_next_round(world: World) -> None:
    world.presence.announce()
    world.keeper.lease().revoke()
    assert world.lease() == "" and not world.presence.wanted.is_set()
    world.clock.advance(12)
    world.keeper.renew_if_due()
    assert world.presence.wanted.is_set()
