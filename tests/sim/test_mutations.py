"""The simulator finds what it is there for: each deliberate bug breaks the invariant that it is about."""

from __future__ import annotations

import pytest

from sim.mutations import INVARIANTS, MUTATIONS, SEARCHES


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_bug_is_found_and_without_it_nothing_is(name: str) -> None:
    mutation, search = MUTATIONS[name], SEARCHES[name]
    with mutation.in_place():
        found = search.find()
    assert found is not None, f"{name} is not found any more: look for it with python tests/sim/mutations.py {name}"
    seed, violation = found
    assert violation.invariant in (mutation.invariant, *mutation.also), violation
    assert search.run(seed) is None, f"not the bug's doing: {search.store} {seed}"


def test_it_is_found_in_the_same_way_every_time() -> None:
    mutation, search = MUTATIONS["clean-start"], SEARCHES["clean-start"]
    with mutation.in_place():
        assert search.find() == search.find() is not None


def test_every_invariant_that_can_show_here_has_a_bug() -> None:
    assert set(INVARIANTS) - {mutation.invariant for mutation in MUTATIONS.values()} == {"A7"}  # signals to processes
    assert set(SEARCHES) == set(MUTATIONS)
