"""Tasks go where least is wasted, to hosts in use before empty ones, whatever the order in which hosts are given."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_binpack.plugin import sked_schedulers
from sked_binpack.score import terms, tightness
from sked_core.plugin import Candidate, Demand

SCHEDULER = sked_schedulers()["binpack"]()


def candidate(
    host: str,
    *,
    memory: int = 1000,
    cpu: int = 1000,
    free_memory: int,
    free_cpu: int,
    ports: int = 100,
    tasks: int | None = None,
):
    return Candidate(
        host=host,
        memory=memory,
        cpu_units=cpu,
        disk=0,
        free_memory=free_memory,
        free_cpu_units=free_cpu,
        free_disk=0,
        free_ports=ports,
        tasks=int((free_memory, free_cpu) != (memory, cpu)) if tasks is None else tasks,
        tasks_of_service=0,
    )


def demand(memory: int = 100, cpu: int = 100, *, provide_port: bool = False) -> Demand:
    return Demand(cluster="c", service="s", memory=memory, cpu_units=cpu, provide_port=provide_port)


def place(asked: Demand, count: int, *candidates: Candidate) -> list[str]:
    return list(SCHEDULER.place(asked, count, candidates))


def test_the_fullest_host_is_filled_before_the_next():
    hosts = [
        candidate("a-empty", free_memory=1000, free_cpu=1000),
        candidate("m-half", free_memory=500, free_cpu=500),
        candidate("z-fuller", free_memory=300, free_cpu=300),
    ]
    assert place(demand(), 10, *hosts) == ["z-fuller"] * 3 + ["m-half"] * 5 + ["a-empty"] * 2


@pytest.mark.parametrize("size", [50, 100, 250, 500])
def test_what_fills_a_host_in_use_to_the_brim_goes_there(size):
    empty = candidate("a-empty", free_memory=1000, free_cpu=1000)
    used = candidate("z-used", free_memory=size, free_cpu=size)
    assert place(demand(size, size), 1, empty, used) == ["z-used"]


def test_a_host_that_such_tasks_can_fill_comes_before_a_somewhat_fuller_one():
    fits_twice = candidate("z", free_memory=400, free_cpu=400)
    leaves_a_rest = candidate("a", free_memory=350, free_cpu=350)
    assert place(demand(200, 200), 3, fits_twice, leaves_a_rest) == ["z", "z", "a"]


def test_memory_is_not_given_away_where_cpu_would_be_left_for_nothing():
    little_memory = candidate("a", free_memory=300, free_cpu=600)
    even = candidate("z", free_memory=600, free_cpu=300)
    assert place(demand(300, 100), 1, little_memory, even) == ["z"], "z would have neither left over after two"


def test_large_hosts_are_kept_for_large_tasks():
    large = candidate("a", memory=8000, cpu=8000, free_memory=7900, free_cpu=7900)
    small = candidate("z", free_memory=950, free_cpu=950)
    assert place(demand(), 9, large, small) == ["z"] * 9


def test_equally_full_hosts_are_taken_by_name():
    hosts = [candidate(name, free_memory=100, free_cpu=100) for name in ("c", "a", "b")]
    assert place(demand(), 3, *hosts) == ["a", "b", "c"]


def test_it_stops_when_nothing_fits_any_more():
    assert place(demand(memory=300), 9, candidate("a", free_memory=700, free_cpu=1000)) == ["a", "a"]


def test_ports_limit_it_too():
    full = candidate("full", free_memory=500, free_cpu=500, ports=1)
    other = candidate("other", free_memory=1000, free_cpu=1000, ports=9)
    assert place(demand(provide_port=True), 3, full, other) == ["full", "other", "other"]


def test_tasks_that_ask_for_nothing_share_the_fullest_host():
    hosts = [candidate("a", free_memory=900, free_cpu=900), candidate("b", free_memory=200, free_cpu=200)]
    assert place(demand(0, 0), 3, *hosts) == ["b"] * 3


def test_a_full_host_scores_nothing_and_hosts_without_figures_do_as_well():
    assert tightness(demand(500, 500), candidate("a", free_memory=500, free_cpu=500)) == 0
    assert tightness(demand(0, 0), candidate("a", memory=0, cpu=0, free_memory=0, free_cpu=0, tasks=1)) == 0


@given(
    st.tuples(st.integers(0, 500), st.integers(0, 500)),
    st.tuples(st.integers(0, 4000), st.integers(0, 4000)),
    st.tuples(st.integers(0, 4000), st.integers(0, 4000)),
    st.integers(0, 2),
)
def test_the_terms_add_up_to_the_score(needs, totals, free, tasks):
    asked = demand(*needs)
    host = candidate(
        "a",
        memory=totals[0],
        cpu=totals[1],
        free_memory=max(free[0], needs[0]),
        free_cpu=max(free[1], needs[1]),
        tasks=tasks,
    )
    assert sum(terms(asked, host).values()) == pytest.approx(tightness(asked, host))


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
