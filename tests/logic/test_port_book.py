"""The ports of one host: free ones are counted as they come and go, and which one is given next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.logic.port_book import REST_SECONDS, PortBook
from sked_core.model.ports import Binding

FIRST, LAST = 5, 9
ports = st.integers(FIRST - 2, LAST + 2)
steps_of_ports = st.lists(st.tuples(st.booleans(), ports))


@given(steps_of_ports, st.lists(st.sets(ports), min_size=1, max_size=3), st.integers(0, 99))
def test_free_ports_are_the_ones_of_the_range_that_nobody_holds(steps, strangers, start):
    book, held = PortBook(), Counter[int]()
    for known in strangers:
        book.describe(FIRST, LAST, known)
        for take, port in steps:
            if take:
                book.take(port)
                held[port] += 1
            elif held[port]:
                book.give(port, 0.0)
                held[port] -= 1
            free = {one for one in range(FIRST, LAST + 1) if not held[one] and one not in known}
            assert book.free == len(free)
            assert all(book.taken(one) == (held[one] > 0) for one in range(FIRST - 2, LAST + 3))
            assert {one for one in range(FIRST, LAST + 1) if not book.refusal(one)} == free
            if free:
                assert book.pick(start, 0.0) in free
            else:
                with pytest.raises(LookupError):
                    book.pick(start, 0.0)


@given(
    st.lists(st.tuples(st.sampled_from(["give", "pick", "wait"]), st.integers(0, 99)), max_size=60),
    st.sets(ports, max_size=2),
)
def test_a_port_rests_before_it_is_given_again_unless_no_other_is_free(steps, strangers):
    now, held = 0.0, list[int]()
    freed: dict[int, float] = {}
    book, twin = PortBook(), PortBook()
    for one in (book, twin):
        one.describe(FIRST, LAST, strangers)
    for step, number in steps:
        if step == "wait":
            now += number
        elif step == "give" and held:
            port = held.pop(number % len(held))
            freed[port] = now
            for one in (book, twin):
                one.give(port, now)
        elif step == "pick":
            free = {one for one in range(FIRST, LAST + 1) if one not in held and one not in strangers}
            rested = {one for one in free if now - freed.get(one, -REST_SECONDS) >= REST_SECONDS}
            if not free:
                with pytest.raises(LookupError):
                    book.pick(number, now)
                continue
            port = book.pick(number, now)
            assert port in (rested or free)
            assert rested or freed[port] == min(freed[one] for one in free)
            assert twin.pick(number, now) == port
            held.append(port)
            for one in (book, twin):
                one.take(port)


def test_what_was_only_planned_leaves_nothing_to_rest():
    book = PortBook()
    book.describe(FIRST, LAST, ())
    first = book.pick(0, 100.0)
    book.take(first)
    book.give(first)
    assert book.pick(0, 100.0) == first


def test_what_rested_long_enough_is_forgotten():
    book = PortBook()
    book.describe(20000, 29999, ())
    for number in range(5000):
        book.take(20000 + number)
        book.give(20000 + number, float(number))
    assert book._freed is not None
    assert len(book._freed) == REST_SECONDS


def test_who_holds_a_port_is_said():
    book = PortBook()
    book.describe(FIRST, LAST, [6])
    book.take(7)
    assert [book.refusal(port) for port in (5, 6, 7)] == [
        "",
        "port 6 is in use on the host",
        "port 7 is held by another task",
    ]


def test_protocols_are_told_apart_and_addresses_among_tasks_are_not():
    book = PortBook()
    book.describe(FIRST, LAST, [6, 8])
    book.take(Binding(7, protocol="udp").number)
    udp, tcp, one_address = Binding(7, protocol="udp"), Binding(7), Binding(7, "127.0.0.1", "udp")
    assert [book.refusal(one.number) for one in (udp, tcp, one_address)] == [
        "port 7/udp is held by another task",
        "",
        "port 7/udp is held by another task",
    ]
    book.take(7)
    assert book.refusal(Binding(7, "10.0.0.1").number) == "port 7 is held by another task"
    # What strangers hold is told for TCP, whatever the address: only the agent knows whether they are in the way.
    assert book.refusal(Binding(6, "127.0.0.1").number) == book.refusal(Binding(8, protocol="udp").number) == ""
