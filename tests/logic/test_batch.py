"""Many demands at once: what any scheduler makes of them, and that none may overdo it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Wanted
from sked_core.logic.batch import place_all
from sked_core.logic.placement import scored, spread


def host(name: str, cpu: int = 1000, memory: int = 1000, ports: int = 5) -> Candidate:
    return Candidate(name, 1000, 1000, 1000, memory, cpu, 1000, ports, 0, 0)


def wanted(service: str, count: int, cpu: int, hosts: frozenset[str] | None = None, **more) -> Wanted:
    return Wanted(Demand("c", service, memory=1, cpu_units=cpu, **more), count, hosts)


class Fixed:
    """Answers what it was told to."""

    def __init__(self, *answer: Sequence[str]) -> None:
        self._answer = answer

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        return iter(())

    def place_batch(self, batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> Sequence[Sequence[str]]:
        return self._answer


def test_a_scheduler_that_takes_one_demand_at_a_time_is_given_the_largest_first():
    first_fit = scored(lambda demand, candidate: 0.0)
    batch = [wanted("small", 4, 300), wanted("large", 2, 700)]
    assert place_all(first_fit, "f", batch, [host("a"), host("b"), host("c")]) == [["a", "b", "c", "c"], ["a", "b"]]


def test_spread_evens_out_each_service():
    batch = [wanted("s", 2, 10), wanted("t", 2, 10)]
    assert [sorted(hosts) for hosts in place_all(spread(), "default", batch, [host("a"), host("b")])] == [
        ["a", "b"]
    ] * 2


def test_tasks_with_one_fixed_port_are_kept_apart_and_hosts_that_are_ruled_out_get_nothing():
    batch = [
        wanted("s", 2, 10, fixed_ports=frozenset({80})),
        wanted("t", 2, 5, hosts=frozenset({"c"}), fixed_ports=frozenset({81})),
        wanted("u", 3, 1, fixed_ports=frozenset({80, 8080})),
    ]
    chosen = place_all(spread(), "default", batch, [host("a"), host("b"), host("c")])
    assert sorted(chosen[0] + chosen[2]) == ["a", "b", "c"]
    assert chosen[1] == ["c"]


@pytest.mark.parametrize(
    "answer",
    [
        [["a"]],
        [["a", "a"], ["b", "b", "b"]],
        [["nowhere"], []],
        [["a"], ["a"]],
        [[], ["b"]],
        [["a"], [7]],
    ],
    ids=["too short", "too many", "unknown host", "no room", "ruled out", "no name"],
)
def test_a_scheduler_that_overdoes_it_is_found_out(answer):
    batch = [wanted("s", 2, 600), wanted("t", 2, 600, hosts=frozenset({"a"}))]
    with pytest.raises(PluginError, match="scheduler bad"):
        place_all(Fixed(*answer), "bad", batch, [host("a"), host("b")])


def test_two_services_may_not_get_one_port_of_one_host():
    batch = [wanted(name, 1, 10, fixed_ports=frozenset({80})) for name in "st"]
    with pytest.raises(PluginError, match="none fits"):
        place_all(Fixed(["a"], ["a"]), "bad", batch, [host("a"), host("b")])
    assert place_all(Fixed(["a"], ["b"]), "good", batch, [host("a"), host("b")]) == [["a"], ["b"]]


def test_a_scheduler_that_fails_is_named():
    class Failing(Fixed):
        def place_batch(self, batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> Sequence[Sequence[str]]:
            raise KeyError("x")

    with pytest.raises(PluginError, match="bad failed: KeyError"):
        place_all(Failing(), "bad", [wanted("s", 1, 1)], [host("a")])


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 700), st.booleans()), min_size=1, max_size=6),
    st.lists(st.integers(0, 1000), min_size=1, max_size=5),
    st.randoms(),
)
def test_nothing_is_overcommitted_and_the_order_of_candidates_does_not_matter(services, free, dice):
    batch = [wanted(f"s{n}", count, cpu, provide_port=port) for n, (count, cpu, port) in enumerate(services)]
    hosts = [host(f"h{n}", cpu) for n, cpu in enumerate(free)]
    for scheduler in (spread(), scored(lambda demand, candidate: -candidate.free_cpu_units)):
        chosen = place_all(scheduler, "s", batch, hosts)
        cpu, ports = defaultdict(int), defaultdict(int)
        for entry, names in zip(batch, chosen, strict=True):
            assert len(names) <= entry.count
            for name in names:
                cpu[name] += entry.demand.cpu_units
                ports[name] += entry.demand.provide_port
        assert all(cpu[each.host] <= each.free_cpu_units and ports[each.host] <= 5 for each in hosts)
        assert place_all(scheduler, "s", batch, dice.sample(hosts, len(hosts))) == chosen
