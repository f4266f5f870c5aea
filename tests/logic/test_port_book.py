"""The ports of one host: free ones are counted as they come and go, and only free ones are given."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.logic.port_book import PortBook

FIRST, LAST = 5, 9
ports = st.integers(FIRST - 2, LAST + 2)


@given(st.lists(st.tuples(st.booleans(), ports)), st.lists(st.sets(ports), min_size=1, max_size=3), st.integers(0, 99))
def test_free_ports_are_the_ones_of_the_range_that_nobody_holds(steps, strangers, start):
    book, held = PortBook(), Counter[int]()
    for known in strangers:
        book.describe(FIRST, LAST, known)
        for take, port in steps:
            if take:
                book.take(port)
                held[port] += 1
            elif held[port]:
                book.give(port)
                held[port] -= 1
            free = {one for one in range(FIRST, LAST + 1) if not held[one] and one not in known}
            assert book.free == len(free)
            assert all(book.taken(one) == (held[one] > 0) for one in range(FIRST - 2, LAST + 3))
            assert {one for one in range(FIRST, LAST + 1) if not book.refusal(one)} == free
            if free:
                assert book.pick(start) in free
            else:
                with pytest.raises(LookupError):
                    book.pick(start)


def test_who_holds_a_port_is_said():
    book = PortBook()
    book.describe(FIRST, LAST, [6])
    book.take(7)
    assert [book.refusal(port) for port in (5, 6, 7)] == [
        "",
        "port 6 is in use on the host",
        "port 7 is held by another task",
    ]
