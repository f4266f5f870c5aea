"""Who stands where in the line for a service."""

from __future__ import annotations

from collections import Counter

from sked_core.logic.turns import rank

SERVICES = [f"service-{number}" for number in range(2000)]


def first(service: str, present: dict[str, list[str]], scheduler: str = "default") -> str:
    (one,) = (name for name in present if rank(service, name, present, scheduler) == 0)
    return one


def four(*, offers: tuple[str, ...] = ("default",)) -> dict[str, list[str]]:
    return {f"host-{number}.4711.ab": list(offers) for number in range(4)}


def test_everybody_has_a_place_of_its_own_for_every_service():
    present = four()
    for service in SERVICES[:200]:
        assert sorted(rank(service, name, present, "default") for name in present) == [0, 1, 2, 3]


def test_services_are_divided_evenly():
    shares = Counter(first(service, four()) for service in SERVICES)
    assert len(shares) == 4
    # 500 each on average; five standard deviations of a fair division are 97.
    assert all(403 <= share <= 597 for share in shares.values())


def test_one_that_leaves_moves_its_own_share_only():
    present = four()
    before = {service: first(service, present) for service in SERVICES}
    gone = next(iter(present))
    del present[gone]
    moved = {service for service in SERVICES if first(service, present) != before[service]}
    assert moved == {service for service, name in before.items() if name == gone}


def test_only_who_can_place_with_a_scheduler_stands_in_line_for_it():
    present = {**four(), "other.1.cd": ["binpack", "default"]}
    assert {first(service, present, "binpack") for service in SERVICES[:50]} == {"other.1.cd"}
    assert rank("web", "host-0.4711.ab", present, "binpack") == 1, "behind the one that can"


def test_who_is_not_present_stands_behind_all_others():
    assert rank("web", "unknown", four(), "default") == 4
    assert rank("web", "unknown", {}, "default") == 0, "nobody else is there"
