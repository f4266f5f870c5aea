"""What a new roll-out replaces, and what becomes of the one that was under way."""

import msgspec
import pytest

from sked_core.interfaces.store import Check, Delete, Entry, Put, Revision
from sked_core.logic.rollout_start import begin, begin_ops, end_ops, numbers, parse
from sked_core.model.codec import encode
from sked_core.model.types import Rollout, Service

ROLE = {"by": "al@web-1", "why": "sked apply", "at": "2026-11-29T16:20:05Z"}


def service(version, name="web"):
    return Service(name="web", task_name=name, task_version=version)


def under_way(former, to, **more):
    return Rollout(
        **{"number": 7, "task_name": "web", "task_version": to, "from_name": "web", "from_version": former} | more
    )


def test_a_first_roll_out_leads_from_the_former_declaration_to_the_new_one():
    started, ended = begin(service(1, "old"), service(2), None, 0, **ROLE)
    assert ended is None
    assert started == Rollout(
        number=1, kind="update", task_name="web", task_version=2, from_name="old", from_version=1, **ROLE
    )


def test_numbers_go_on_from_the_history_and_from_the_one_under_way():
    assert begin(service(1), service(2), None, 41, **ROLE)[0].number == 42
    assert begin(service(2), service(3), under_way(1, 2), 3, **ROLE)[0].number == 8
    assert numbers(["rollouts/web/10", "rollouts/web/9", "rollouts/web/x", "rollouts/web/²"]) == [9, 10]


@pytest.mark.parametrize(
    ("kind", "former", "to", "wanted", "expected"),
    [
        ("update", 1, 2, 3, 1),  # 2 was never seen to work: a failure leads back to 1
        ("update", 1, 2, 1, 2),  # back again: what is replaced is 2
        ("rollback", 2, 1, 3, 1),  # 2 has failed: never back to it
        ("undo", 2, 1, 3, 1),
        ("undo", 2, 1, 2, 1),
    ],
)
def test_what_supersedes_an_unfinished_one_leads_from_the_version_that_was_last_left_in_peace(
    kind, former, to, wanted, expected
):
    active = under_way(former, to, kind=kind)
    started, ended = begin(service(to), service(wanted), active, 6, **ROLE)
    assert (started.from_version, started.task_version, started.state) == (expected, wanted, "running")
    assert (ended.number, ended.result, ended.ended) == (7, "superseded", ROLE["at"])


def test_what_is_not_known_stays_unknown():
    assert begin(None, service(2), None, 0, **ROLE)[0].from_name == ""
    unknown = under_way(0, 2, from_name="")
    assert begin(service(2), service(3), unknown, 0, **ROLE)[0].from_name == ""


def test_a_rollback_ends_the_failed_one_with_its_reason():
    failed = under_way(1, 2, progress={"default": 1})
    started, ended = begin(
        service(2), service(1), failed, 0, kind="rollback", result="rolled_back", reason="exit 1", **ROLE
    )
    assert (started.kind, started.from_version, started.task_version) == ("rollback", 2, 1)
    assert ended == under_way(1, 2, progress={"default": 1}, result="rolled_back", reason="exit 1", ended=ROLE["at"])


def test_the_ops_of_a_beginning_are_guarded_and_keep_what_others_wrote_into_the_former_one():
    raw = Entry(encode(msgspec.to_builtins(under_way(1, 2)) | {"ticket": "OPS-1"}), Revision(9))
    started, ended = begin(service(2), service(3), parse(raw), 6, **ROLE)
    check, put, moved = begin_ops("web", started, ended, raw, [5, 6])
    assert check == Check("scheduling/rollouts/web", Revision(9))
    assert put == Put("scheduling/rollouts/web", encode(started))
    assert moved.key == "rollouts/web/7"
    assert msgspec.json.decode(moved.value) == msgspec.to_builtins(ended) | {"ticket": "OPS-1"}


def test_nobody_else_may_have_begun_one_meanwhile():
    started, ended = begin(service(1), service(2), None, 0, **ROLE)
    assert begin_ops("web", started, ended, None, [])[0] == Check("scheduling/rollouts/web", Revision(0))


def test_what_can_not_be_read_makes_room_for_a_new_one():
    broken = Entry(b"{", Revision(3))
    started, ended = begin(service(1), service(2), parse(broken), 0, **ROLE)
    assert begin_ops("web", started, ended, broken, []) == [
        Check("scheduling/rollouts/web", Revision(3)),
        Put("scheduling/rollouts/web", encode(started)),
    ]


def test_the_last_twenty_are_kept():
    raw = Entry(encode(under_way(1, 2, number=40)), Revision(3))
    ended = msgspec.structs.replace(parse(raw), result="succeeded")
    ops = end_ops("web", ended, raw, range(20, 40))
    assert ops[:2] == [Check("scheduling/rollouts/web", Revision(3)), Delete("scheduling/rollouts/web")]
    assert ops[2] == Put("rollouts/web/40", encode(ended))
    assert ops[3:] == [Delete("rollouts/web/20")]
