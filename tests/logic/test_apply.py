"""What an apply and a scaling write: guarded puts, in an order that can be cut, keeping what others wrote."""

import msgspec
import pytest
from msgspec.structs import replace

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Entry, Put, Revision
from sked_core.logic.apply import plan_apply, scale, with_rollout
from sked_core.model.codec import encode
from sked_core.model.manifest import Manifest
from sked_core.model.types import Cluster, Placement, Rollout, Service, TaskDefinition

CLUSTER = Cluster(name="default", services=["web"])
SERVICE = Service(name="web", task_name="web", task_version=1, desired=2, min=2, max=3, auto_bounds=True)
DEFINITION = TaskDefinition(name="web", version=1)
ALL = Manifest(clusters=(CLUSTER,), services=(SERVICE,), task_definitions=(DEFINITION,))


def entry(value, revision=5):
    return Entry(value if isinstance(value, bytes) else encode(value), Revision(revision))


def outcomes(changes):
    return [(change.kind, change.name, change.outcome) for change in changes]


def test_everything_new_is_created_what_is_referred_to_first_and_only_if_nobody_else_did():
    changes = plan_apply(ALL, {})
    assert outcomes(changes) == [
        ("task_definition", "web/1", "created"),
        ("service", "web", "created"),
        ("cluster", "default", "created"),
    ]
    assert [op for change in changes for op in change.ops] == [
        Check("config/task_definitions/web/1", Revision(0)),
        Put("config/task_definitions/web/1", encode(DEFINITION)),
        Check("config/services/web", Revision(0)),
        Put("config/services/web", encode(SERVICE)),
        Check("config/clusters/default", Revision(0)),
        Put("config/clusters/default", encode(CLUSTER)),
    ]


def test_applying_again_changes_nothing_and_writes_nothing():
    entries = {op.key: entry(op.value) for change in plan_apply(ALL, {}) for op in change.ops if isinstance(op, Put)}
    changes = plan_apply(ALL, entries)
    assert {change.outcome for change in changes} == {"unchanged"}
    assert [op for change in changes for op in change.ops] == []


def test_a_hand_written_definition_with_fewer_fields_is_unchanged():
    entries = {"config/task_definitions/web/1": entry(b'{"version":1,"name":"web","tags":null,"x":1}')}
    (change,) = plan_apply(Manifest(task_definitions=(DEFINITION,)), entries)
    assert (change.outcome, change.ops) == ("unchanged", ())


def test_a_change_checks_the_revision_that_was_read_and_keeps_unknown_fields():
    entries = {"config/services/web": entry(b'{"name":"web","task_name":"web","task_version":0,"note":"mine"}', 7)}
    (change,) = plan_apply(Manifest(services=(SERVICE,)), entries)
    assert change.outcome == "configured"
    check, put = change.ops
    assert check == Check("config/services/web", Revision(7))
    assert msgspec.json.decode(put.value) == {**msgspec.to_builtins(SERVICE), "note": "mine"}


@pytest.mark.parametrize("broken", [b"", b"null", b"[]", b"{", b"\xff"])
def test_applying_over_what_can_not_be_read_repairs_it(broken):
    (change,) = plan_apply(Manifest(clusters=(CLUSTER,)), {"config/clusters/default": entry(broken)})
    assert change.ops == (
        Check("config/clusters/default", Revision(5)),
        Put("config/clusters/default", encode(CLUSTER)),
    )


def test_other_content_of_a_definition_is_never_written():
    entries = {"config/task_definitions/web/1": entry(TaskDefinition(name="web", version=1, memory=5))}
    with pytest.raises(InvalidValue, match="raise its version"):
        plan_apply(Manifest(task_definitions=(DEFINITION,)), entries)


@pytest.mark.parametrize(
    ("stored", "rolls_out"),
    [
        (SERVICE, False),
        (replace(SERVICE, desired=3), False),
        (replace(SERVICE, task_version=2), True),
        (replace(SERVICE, task_name="old"), True),
        (b"{", False),
        (b'{"name":"web"}', False),
    ],
)
def test_another_version_of_what_is_stored_is_a_roll_out_and_nothing_else_is(stored, rolls_out):
    (change,) = plan_apply(Manifest(services=(SERVICE,)), {"config/services/web": entry(stored)})
    assert change.rolls_out is rolls_out
    assert not plan_apply(Manifest(services=(SERVICE,)), {})[0].rolls_out


def test_a_roll_out_is_begun_by_the_ops_of_its_service_and_ends_the_former():
    stored = replace(SERVICE, task_version=3)
    active = Rollout(number=4, task_name="web", task_version=3, from_name="web", from_version=2)
    (change,) = plan_apply(Manifest(services=(SERVICE,)), {"config/services/web": entry(stored, 7)})
    begun = with_rollout(change, entry(active, 9), [2, 3], by="al@web-1", why="release", at="now")
    assert begun.ops[: len(change.ops)] == change.ops
    assert [type(op) for op in begun.ops[2:]] == [Check, Put, Put]
    assert begun.ops[2] == Check("scheduling/rollouts/web", Revision(9))
    assert [op.key for op in begun.ops[3:]] == ["scheduling/rollouts/web", "rollouts/web/4"]
    assert (begun.begun.number, begun.begun.from_version, begun.ended.result) == (5, 2, "superseded")


def scaled(stored, count):
    return msgspec.json.decode(scale(stored if isinstance(stored, bytes) else encode(stored), count))


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0, 1), (8, 8, 10), (9, 9, 12), (10, 10, 13)])
def test_bounds_that_nobody_gave_follow_the_count(count, low, high):
    found = scaled(SERVICE, count)
    assert (found["desired"], found["min"], found["max"], found["auto_bounds"]) == (count, low, high, True)


def test_a_service_written_by_hand_without_bounds_is_scaled_as_if_they_followed():
    found = scaled(b'{"name":"web","task_name":"web","task_version":1,"note":"mine"}', 4)
    assert found == {
        "name": "web", "task_name": "web", "task_version": 1, "note": "mine",
        "desired": 4, "min": 4, "max": 5, "auto_bounds": True,
    }  # fmt: skip


def test_given_bounds_stay_and_a_count_outside_of_them_is_refused_with_the_edit_to_make():
    given = Service(name="web", task_name="web", task_version=1, desired=4, min=3, max=5)
    assert scaled(given, 5)["desired"] == 5
    assert scaled(given, 3) == {**msgspec.to_builtins(given), "desired": 3}
    with pytest.raises(InvalidValue, match="6 is above the max of 5 that service web was given") as caught:
        scale(encode(given), 6)
    assert "`max: 6`" in caught.value.hint
    with pytest.raises(InvalidValue, match="2 is below the min of 3 that service web was given") as caught:
        scale(encode(given), 2)
    assert "`min: 2`" in caught.value.hint


@pytest.mark.parametrize("count", [-1, 1_000_001])
def test_a_count_that_can_not_be_is_refused(count):
    with pytest.raises(InvalidValue, match="expected a count from 0 to 1000000"):
        scale(encode(SERVICE), count)


def test_a_service_that_can_not_be_read_is_not_scaled():
    with pytest.raises(InvalidValue, match="not a valid Service"):
        scale(b"{}", 1)


def test_placement_is_kept_by_a_scaling_and_goes_with_an_apply_that_leaves_it_out():
    placed = replace(SERVICE, placement=Placement(require=["zone = a"]))
    assert scaled(placed, 5)["placement"]["require"] == ["zone = a"]
    (change,) = plan_apply(Manifest(services=(placed,)), {"config/services/web": entry(SERVICE)})
    assert (change.outcome, change.rolls_out) == ("configured", False)
    (change,) = plan_apply(Manifest(services=(SERVICE,)), {"config/services/web": entry(placed)})
    assert (change.outcome, change.rolls_out) == ("configured", False)
    (stored,) = (op.value for op in change.ops if isinstance(op, Put))
    assert stored == encode(SERVICE)
