"""Tasks go to the fullest host that still fits, whatever the order in which hosts are given."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sked_binpack.plugin import sked_schedulers, tightness
from sked_core.plugin import Candidate, Demand

SCHEDULER = sked_schedulers()["binpack"]()


def candidate(host: str, *, memory: int = 1000, cpu: int = 1000, free_memory: int, free_cpu: int, ports: int = 100):
    return Candidate(
        host=host,
        memory=memory,
        cpu_units=cpu,
        disk=0,
        free_memory=free_memory,
        free_cpu_units=free_cpu,
        free_disk=0,
        free_ports=ports,
        tasks=0,
        tasks_of_service=0,
    )


def demand(memory: int = 100, cpu: int = 100, *, provide_port: bool = False) -> Demand:
    return Demand(cluster="c", service="s", memory=memory, cpu_units=cpu, provide_port=provide_port)


def place(asked: Demand, count: int, *candidates: Candidate) -> list[str]:
    return list(SCHEDULER.place(asked, count, candidates))


def test_the_fullest_host_is_filled_before_the_next():
    empty = candidate("a-empty", free_memory=1000, free_cpu=1000)
    half = candidate("z-half", free_memory=500, free_cpu=500)
    assert place(demand(), 7, empty, half) == ["z-half"] * 5 + ["a-empty"] * 2


def test_equally_full_hosts_are_taken_by_name():
    hosts = [candidate(name, free_memory=100, free_cpu=100) for name in ("c", "a", "b")]
    assert place(demand(), 3, *hosts) == ["a", "b", "c"]


def test_it_stops_when_nothing_fits_any_more():
    assert place(demand(memory=300), 9, candidate("a", free_memory=700, free_cpu=1000)) == ["a", "a"]


def test_ports_limit_it_too():
    full = candidate("full", free_memory=500, free_cpu=500, ports=1)
    other = candidate("other", free_memory=1000, free_cpu=1000, ports=9)
    assert place(demand(provide_port=True), 3, full, other) == ["full", "other", "other"]


def test_the_score_is_the_mean_share_in_use_afterwards():
    assert tightness(demand(memory=250, cpu=0), candidate("a", free_memory=500, free_cpu=1000)) == (0.75 + 0) / 2
    assert tightness(demand(memory=250), candidate("a", cpu=0, free_memory=500, free_cpu=0)) == 0.75
    assert tightness(demand(), candidate("a", memory=0, cpu=0, free_memory=0, free_cpu=0)) == 0.0


@st.composite
def fleets(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True))
    free = st.integers(100, 1000)
    return [candidate(name, free_memory=draw(free), free_cpu=draw(free)) for name in names]


@given(fleets(), st.integers(1, 60))
def test_no_host_gets_more_than_fits_and_nothing_is_left_out_that_would_fit(fleet, count):
    placed = place(demand(), count, *fleet)
    per_host = Counter(placed)
    room = {each.host: min(each.free_memory, each.free_cpu_units) // 100 for each in fleet}
    assert all(per_host[host] <= room[host] for host in per_host)
    assert len(placed) == min(count, sum(room.values()))


@given(fleets(), st.integers(1, 60), st.randoms())
def test_the_order_of_the_candidates_does_not_matter(fleet, count, random):
    shuffled = random.sample(fleet, len(fleet))
    assert place(demand(), count, *fleet) == place(demand(), count, *shuffled)
