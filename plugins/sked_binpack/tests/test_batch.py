"""A batch fills one host after the other with what leaves least unused, and overloads none."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from sked_binpack.batch import pack
from sked_binpack.plugin import sked_schedulers
from sked_core.plugin import Candidate, Demand, Wanted

SCHEDULER = sked_schedulers()["binpack"]()


def host(name: str, *, cpu: int = 1000, memory: int = 1000, disk: int = 1000, ports: int = 9, tasks: int = 0):
    return Candidate(
        host=name,
        memory=1000,
        cpu_units=1000,
        disk=1000,
        free_memory=memory,
        free_cpu_units=cpu,
        free_disk=disk,
        free_ports=ports,
        tasks=tasks,
        tasks_of_service=0,
    )


def wanted(service: str, count: int, *, cpu: int = 0, memory: int = 0, hosts: frozenset[str] | None = None, **more):
    return Wanted(Demand("c", service, memory=memory, cpu_units=cpu, **more), count, hosts)


def test_tasks_that_fill_a_host_together_share_it():
    hosts = [host(f"h{n}") for n in range(6)]
    batch = [wanted("a", 3, cpu=600), wanted("b", 2, cpu=400), wanted("c", 2, cpu=200), wanted("d", 6, cpu=100)]
    chosen = pack(batch, hosts)
    assert [len(hosts) for hosts in chosen] == [3, 2, 2, 6]
    assert len({name for hosts in chosen for name in hosts}) == 4, "3,600 in all"


def test_memory_and_cpu_are_evened_out():
    hosts = [host(f"h{n}") for n in range(4)]
    chosen = pack([wanted("cpu", 4, cpu=450, memory=50), wanted("memory", 4, cpu=50, memory=450)], hosts)
    assert len({name for hosts in chosen for name in hosts}) == 2


def test_hosts_with_tasks_are_filled_before_empty_ones():
    hosts = [host("empty"), host("used", cpu=500, memory=500, tasks=3)]
    assert pack([wanted("s", 6, cpu=100, memory=100)], hosts) == [["used"] * 5 + ["empty"]]


def test_the_last_host_is_the_smallest_that_takes_what_is_left():
    hosts = [host("large"), host("middle", cpu=500), host("small", cpu=300)]
    assert pack([wanted("s", 3, cpu=100)], hosts) == [["small"] * 3]
    assert pack([wanted("s", 12, cpu=100)], hosts) == [["large"] * 10 + ["small"] * 2]


def test_tasks_that_ask_for_nothing_go_where_there_are_others():
    hosts = [host("a"), host("b", cpu=100, tasks=1)]
    assert pack([wanted("idle", 4)], hosts) == [["b"] * 4]
    assert pack([wanted("idle", 1), wanted("busy", 1, cpu=500)], hosts) == [["b"], ["a"]]


def test_ports_limit_it_and_tasks_with_one_fixed_port_are_kept_apart():
    hosts = [host("a", ports=2), host("b", ports=1)]
    assert sorted(pack([wanted("s", 9, cpu=1, provide_port=True)], hosts)[0]) == ["a", "a", "b"]
    one, other = pack(
        [wanted("s", 2, cpu=10, fixed_ports=frozenset({80})), wanted("t", 1, cpu=10, fixed_ports=frozenset({80, 81}))],
        [host("a"), host("b"), host("c")],
    )
    assert len({*one, *other}) == 3


def test_what_only_few_hosts_may_take_goes_there():
    hosts = [host(f"h{n}", cpu=300) for n in range(4)]
    chosen = pack([wanted("any", 2, cpu=300), wanted("there", 2, cpu=300, hosts=frozenset({"h0", "h1"}))], hosts)
    assert set(chosen[1]) == {"h0", "h1"}
    assert len(chosen[0]) == 2


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Wanted], list[Candidate]]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=7, unique=True))
    free = st.integers(-50, 1000)
    hosts = [
        host(
            name,
            cpu=draw(free),
            memory=draw(free),
            disk=draw(free),
            ports=draw(st.integers(0, 6)),
            tasks=draw(st.integers(0, 2)),
        )
        for name in names
    ]
    size = st.sampled_from((0, 1, 30, 70, 110, 250, 333, 500, 900))
    batch = [
        wanted(
            f"s{n}",
            draw(st.integers(0, 12)),
            cpu=draw(size),
            memory=draw(size),
            disk=draw(st.sampled_from((0, 0, 200))),
            provide_port=draw(st.booleans()),
            fixed_ports=draw(st.sampled_from((frozenset(), frozenset(), frozenset({80}), frozenset({80, 81})))),
            hosts=draw(st.none() | st.frozensets(st.sampled_from("abcdefgh"), min_size=1)),
        )
        for n in range(draw(st.integers(1, 9)))
    ]
    return batch, hosts


def room(batch: list[Wanted], hosts: list[Candidate], chosen: list[list[str]]) -> dict[str, Candidate]:
    """What is left of each host, or an AssertionError."""
    left, ports = {each.host: each for each in hosts}, defaultdict(list)
    for entry, names in zip(batch, chosen, strict=True):
        assert len(names) <= entry.count
        for name in names:
            assert entry.hosts is None or name in entry.hosts
            demand, free = entry.demand, left[name]
            assert not demand.memory or demand.memory <= free.free_memory
            assert not demand.cpu_units or demand.cpu_units <= free.free_cpu_units
            assert not demand.disk or demand.disk <= free.free_disk
            assert not demand.provide_port or free.free_ports
            left[name] = free.after(demand)
            ports[name] += demand.fixed_ports
    assert all(len(set(taken)) == len(taken) for taken in ports.values())
    return left


@settings(max_examples=300)
@given(batches())
def test_no_host_is_overloaded_and_nothing_is_left_out_that_would_still_fit(drawn):
    batch, hosts = drawn
    chosen = pack(batch, hosts)
    left = room(batch, hosts, chosen)
    ports = defaultdict(set)
    for entry, names in zip(batch, chosen, strict=True):
        for name in names:
            ports[name] |= entry.demand.fixed_ports
    for entry, names in zip(batch, chosen, strict=True):
        if len(names) == entry.count:
            continue
        demand = entry.demand
        for name, free in left.items():
            if entry.hosts is not None and name not in entry.hosts:
                continue
            assert (
                0 < demand.memory > free.free_memory
                or 0 < demand.cpu_units > free.free_cpu_units
                or 0 < demand.disk > free.free_disk
                or (demand.provide_port and free.free_ports < 1)
                or not ports[name].isdisjoint(demand.fixed_ports)
            ), f"{demand} fits on {name}"


@given(batches(), st.randoms())
def test_neither_order_matters_and_it_comes_out_the_same_each_time(drawn, dice):
    batch, hosts = drawn
    mixed = dice.sample(batch, len(batch))
    answers = [pack(batch, hosts), pack(batch, hosts)]
    other = pack(mixed, dice.sample(hosts, len(hosts)))
    assert answers[0] == answers[1]
    assert {entry.demand.service: names for entry, names in zip(mixed, other, strict=True)} == {
        entry.demand.service: names for entry, names in zip(batch, answers[0], strict=True)
    }


def test_it_needs_fewer_hosts_than_placing_one_by_one():
    used = Counter()
    for seed in range(20):
        dice = random.Random(seed)
        sizes = [(dice.randint(20, 400), dice.randint(20, 400)) for _ in range(8)]
        batch = [wanted(f"s{n}", dice.randint(1, 12), cpu=cpu, memory=mem) for n, (cpu, mem) in enumerate(sizes)]
        hosts = [host(f"h{n:03}") for n in range(60)]
        chosen = pack(batch, hosts)
        assert [len(names) for names in chosen] == [entry.count for entry in batch]
        used["batch"] += len({name for names in chosen for name in names})
        tasks = [entry for entry in batch for _ in range(entry.count)]
        for how, order in (
            ("largest first", sorted(tasks, key=lambda entry: -max(entry.demand.memory, entry.demand.cpu_units))),
            ("mixed", dice.sample(tasks, len(tasks))),
        ):
            left = {each.host: each for each in hosts}
            for entry in order:
                fitting = [each for each in left.values() if each.fits(entry.demand)]
                (name,) = SCHEDULER.place(entry.demand, 1, fitting)
                left[name] = left[name].after(entry.demand)
            used[how] += sum(each.tasks > 0 for each in left.values())
    assert used["batch"] < used["largest first"] and used["batch"] < used["mixed"], dict(used)


def test_thousands_of_tasks_of_as_many_sizes_are_placed():
    dice = random.Random(7)
    batch = [wanted(f"s{n:05}", 1, cpu=dice.randint(10, 300), memory=dice.randint(10, 300)) for n in range(3000)]
    hosts = [host(f"h{n:04}") for n in range(700)]
    chosen = pack(batch, hosts)
    room(batch, hosts, chosen)
    assert all(len(names) == 1 for names in chosen)
    asked = sum(entry.demand.cpu_units for entry in batch) / 1000
    used = len({name for names in chosen for name in names})
    assert used <= 1.05 * asked, f"{used} hosts for {asked:.0f} hosts' worth of cpu"
