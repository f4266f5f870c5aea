"""Decisions run again: the same bytes, or what differs; and other schedulers asked about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from msgspec.structs import replace

from logic.cases import FIRST, SPREAD, Case, cases, read_again
from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.logic.placement import scored
from sked_core.logic.recording import sealed
from sked_core.logic.replay import OTHER_ORDER, differing, replay, shadow_of
from sked_core.model.decisions import Batch
from sked_core.testing.builders import a_definition, a_host

FULLEST = scored(lambda demand, candidate: -candidate.free_memory)


def _batch(count: int = 2, memory: int = 100, hosts: Sequence[str] = ("a", "b"), **facts: object) -> Batch:
    views = tuple(a_host(name, **facts) for name in hosts)
    batch = Case(views, (), a_definition(memory=memory), count, None, {}, SPREAD).batch()
    assert batch is not None
    return batch


@settings(max_examples=100, deadline=None)
@given(cases())
def test_whatever_was_decided_comes_to_the_same_and_asking_others_leaves_the_record_as_it_is(case: Case) -> None:
    batch = case.batch()
    if batch is None:
        return
    before = read_again(batch)
    assert replay(batch, "web", case.scheduler, "default").same
    for other in (SPREAD, FULLEST, FIRST):
        found = replay(batch, "web", other, "default")
        assert found.same or found.differences
        assert found.same or found.moved or found.answer is None or sorted(found.answer.hosts) == sorted(batch.hosts)
        assert shadow_of(batch, "web", other, "default").differs == found.moved
    assert batch == before


def test_another_scheduler_is_told_apart_host_by_host_and_by_how_much_better_its_choice_is() -> None:
    batch = _batch(count=4)
    assert sorted(batch.hosts) == ["a", "a", "b", "b"]
    found = replay(batch, "web", FULLEST, "fullest")
    assert found.answer is not None
    assert (found.answer.hosts, found.moved) == (("a", "a", "a", "a"), 2)
    assert found.differences == ("a: 2 then, 4 now", "b: 2 then, 0 now")


def test_like_tasks_on_the_same_hosts_in_another_order_are_the_same_tasks() -> None:
    assert differing(["a", "b", "a"], ["b", "a", "a"]) == 0
    assert differing(["a", "b"], ["c", "c"]) == 2
    assert differing(["a", "b"], ["a"]) == 1
    backwards = _Backwards()
    found = replay(_batch(count=2), "web", backwards, "backwards")
    assert (found.moved, found.differences) == (0, (OTHER_ORDER,))


class _Backwards:
    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        yield from sorted((one.host for one in candidates), reverse=True)[:count]


def test_a_record_that_was_changed_is_not_believed() -> None:
    batch = _batch()
    assert batch.seen is not None
    other = replace(batch, seen=replace(batch.seen, memory=9000))
    assert "inputs are not those that its digest stands for" in replay(other, "web", SPREAD, "default").problem
    assert "inputs are not those" in replay(batch, "other", SPREAD, "default").problem
    moved = replace(batch, hosts=["a", "a"])
    assert "what was decided is not what its digest stands for" in replay(moved, "web", SPREAD, "default").problem


def test_a_record_without_figures_says_why_it_can_t_be_run_again() -> None:
    batch = replace(_batch(), seen=None, left_out="the figures of 900 hosts are more than is kept of a decision")
    assert replay(batch, "web", SPREAD, "default").problem == (
        "it can't be run again: the figures of 900 hosts are more than is kept of a decision"
    )
    assert "900 hosts" in shadow_of(batch, "web", SPREAD, "default").fault


def test_what_a_scheduler_does_wrong_is_a_fault_of_its_own() -> None:
    class Raising:
        def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
            raise ZeroDivisionError("no")

    class Overdoing:
        def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
            yield from ["a"] * (count + 1)

    assert "ZeroDivisionError" in shadow_of(_batch(), "web", Raising(), "raising").fault
    assert "more than the 2 tasks" in shadow_of(_batch(), "web", Overdoing(), "overdoing").fault


def test_a_batch_of_which_not_all_is_kept_is_compared_by_its_digest() -> None:
    whole = _batch(count=3)
    cut = replace(whole, hosts=whole.hosts[:1], instances=whole.instances[:1], omitted=2)
    assert replay(cut, "web", SPREAD, "default").same
    found = replay(cut, "web", FULLEST, "fullest")
    assert not found.same and found.differences


def test_what_is_said_to_be_left_out_has_to_add_up() -> None:
    whole = _batch(count=3)
    cut = replace(whole, hosts=whole.hosts[:1], instances=whole.instances[:1], omitted=2)
    full = _batch(count=3, memory=6000, hosts=("a", "b"))
    assert (full.waiting, len(full.refusals)) == (1, 2)
    less = replace(full, refusals={"a": full.refusals["a"]}, silent=1)
    assert replay(less, "web", SPREAD, "default").same
    for torn in (
        replace(whole, omitted=1),
        replace(whole, silent=1),
        replace(cut, omitted=1),
        replace(less, silent=2),
        replace(less, refusals={"a": ["because"]}),
        replace(cut, omitted=1, waiting=1, silent=2),
        replace(cut, hosts=["b" if cut.hosts == ["a"] else "a"]),
    ):
        assert "is not what its digest stands for" in replay(torn, "web", SPREAD, "default").problem


def test_scores_that_are_no_numbers_are_not_kept() -> None:
    scheduler = _Odd()
    case = Case((a_host("a"),), (), a_definition(), 1, None, {}, scheduler)
    (batch,) = case.plan().batches
    assert batch.terms == [{"good": 1.0}]
    assert read_again(sealed(batch, "web")).terms == [{"good": 1.0}]


class _Odd(_Backwards):
    def terms(self, demand: Demand, candidate: Candidate) -> dict[str, float]:
        return {"good": 1, "bad": float("nan"), "worse": float("inf")}
