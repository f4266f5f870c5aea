"""A decision that was kept can be run again, from what was kept of it alone, and comes to the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logic.cases import SPREAD, Case, cases
from sked_core.errors import InvalidValue
from sked_core.logic.decision import answer_of, decide, inputs_digest, scene_of
from sked_core.logic.recording import MIN_BYTES_KEPT, bytes_kept, fitted, sealed
from sked_core.model.decisions import Decision
from sked_core.testing.builders import a_definition, a_host, a_task


@settings(max_examples=120, deadline=None)
@given(cases())
def test_every_kept_decision_comes_to_the_same_bytes_when_it_is_run_again(case: Case) -> None:
    batch = case.batch()
    if batch is None:
        return
    assert batch.seen is not None
    assert inputs_digest(batch, "web") == batch.digest
    again = decide(scene_of(batch.asked, batch.seen, batch.cluster, "web"), case.scheduler, "default")
    assert again == answer_of(batch)
    assert again.encoded() == answer_of(batch).encoded()
    assert again.digest() == batch.answer


@settings(deadline=None)
@given(cases(), st.randoms())
def test_in_which_order_hosts_and_tasks_stand_changes_nothing_that_is_kept(case: Case, random: object) -> None:
    def shuffled(items: Sequence[object]) -> tuple[object, ...]:
        return tuple(random.sample(list(items), len(items)))  # type: ignore[attr-defined]

    other = replace(case, hosts=shuffled(case.hosts), tasks=shuffled(case.tasks))  # type: ignore[arg-type]
    assert other.batch() == case.batch()


def test_a_batch_that_places_nothing_is_kept_only_when_more_wait_than_before() -> None:
    full = Case((a_host("a", memory=10),), (), a_definition(memory=60), 3, None, {}, SPREAD)
    assert [batch.waiting for batch in full.plan().batches] == [3]
    assert full.plan(waiting=2).batches != ()
    assert full.plan(waiting=3).batches == ()


def test_what_takes_over_from_a_lost_host_is_run_again_with_the_place_that_was_given_up() -> None:
    lost = a_task("c", 0, a_definition(memory=60))
    case = Case(
        (a_host("a"), a_host("c", alive=False, lost=True)), (lost,), a_definition(memory=60), 1, None, {}, SPREAD
    )
    batch = case.batch()
    assert batch is not None and batch.seen is not None
    assert (batch.hosts, batch.instances, batch.seen.freed) == (["a"], [0], ["c"])


def test_of_more_hosts_than_are_kept_no_figures_are_kept_and_that_is_said() -> None:
    case = Case(tuple(a_host(f"h{number}") for number in range(6)), (), a_definition(), 2, None, {}, SPREAD)
    assert case.plan(hosts=6).batches[0].seen is not None
    (batch,) = case.plan(hosts=5).batches
    assert (batch.seen, batch.hosts) == (None, ["h0", "h1"])
    assert batch.left_out == "the figures of 6 hosts are more than is kept of a decision"
    assert sealed(batch, "web").digest == ""


def _decision(count: int, hosts: int, **more: object) -> Decision:
    views = tuple(a_host(f"host-number-{number}", memory=1000 + number, **more) for number in range(hosts))
    batch = Case(views, (), a_definition(memory=60), count, None, {}, SPREAD).plan().batches[0]
    return Decision(number=1, at="", by="s1", scheduler="default", batches=[sealed(batch, "web")])


@pytest.mark.parametrize(("count", "hosts"), [(1, 3), (1, 400), (5000, 3), (900, 400)])
def test_a_decision_takes_no_more_bytes_than_it_may(count: int, hosts: int) -> None:
    whole = _decision(count, hosts)
    value = fitted(whole, 4000)
    assert len(value) <= 4000
    (kept,), (batch,) = msgspec.json.decode(value, type=Decision).batches, whole.batches
    assert len(kept.hosts) + kept.omitted == len(kept.instances) + kept.omitted == len(batch.hosts)
    assert len(kept.refusals) + kept.silent == len(batch.refusals)
    assert (kept.seen is None) == bool(kept.left_out)
    assert kept.hosts == batch.hosts[: len(kept.hosts)]
    assert (kept.digest, kept.answer) == (batch.digest, batch.answer)


def test_what_fits_is_kept_as_it_is() -> None:
    whole = _decision(3, 3)
    assert fitted(whole, 4000) == msgspec.json.encode(whole)


def test_the_more_services_there_are_the_less_is_kept_of_each() -> None:
    assert bytes_kept(0) == bytes_kept(100) > bytes_kept(1000) > bytes_kept(10_000) == MIN_BYTES_KEPT


def test_columns_of_another_length_than_the_hosts_are_refused() -> None:
    batch = _decision(1, 3).batches[0]
    assert batch.seen is not None
    torn = msgspec.structs.replace(batch.seen, tasks=[1, 2])
    with pytest.raises(InvalidValue, match="a column of 2 values for 3 hosts"):
        scene_of(batch.asked, torn, "default", "web")
