"""The judge finds every kind of violation, and nothing in a history that is in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from history.checker import RULES, check
from history.recorder import PREFIX
from history.records import Commit, Event, Held, History, Look, Put
from sked_core.model import keys

LOCK = keys.service_lock("web")
SERVICE = keys.service("web")
FIRST, SECOND = "scheduler-1.1", "scheduler-2.1"


def commit(process: str, revision: int, *puts: Put, **more) -> Commit:
    """A commit that was acknowledged, began at the second of its revision and took half of one."""
    return Commit(
        process=process, number=revision, began=revision, revision=revision, ended=revision + 0.5, told=revision,
        puts=puts, **more
    )  # fmt: skip


def task(number: int = 0, host: str = "a", version: str = "x", **said) -> tuple[Put, Put]:
    """Both keys of ``north-web-1-<number>``."""
    facts = {"service": "web", "cluster": "north", "host": host, "scheduled": True, "rejected": False, **said}
    name = f"north-web-1-{number}"
    return tuple(Put(key, "", version, facts) for key in (keys.task(name), keys.host_task(host, name)))


def removed(number: int = 0, host: str = "a") -> list[str]:
    return [keys.task(f"north-web-1-{number}"), keys.host_task(host, f"north-web-1-{number}")]


def lock(lease: str = "L1") -> Put:
    return Put(LOCK, lease, "holder")


def declared(most: int = 2, revision: int = 1) -> Commit:
    return commit("users", revision, Put(SERVICE, "", f"max {most}", {"desired": 1, "min": 0, "max": most}))


def alive(host: str = "a", revision: int = 2) -> Commit:
    return commit("hosts", revision, Put(keys.live(host), "H", "agent"), checks={keys.live(host): 0})


def locked(process: str = FIRST, revision: int = 3, lease: str = "L1") -> Commit:
    return commit(process, revision, lock(lease), checks={LOCK: 0})


def write(process: str, revision: int, *puts: Put, lease: str = "L1", **more) -> Commit:
    """A commit as schedulers make them."""
    return commit(process, revision, *puts, fences={LOCK: lease}, **more)


GOOD = [
    declared(),
    alive(),
    locked(),
    write(FIRST, 4, *task(0), checks={SERVICE: 1, keys.task("north-web-1-0"): 0}),
    write(FIRST, 5, *task(1), deletes=[LOCK], checks={SERVICE: 1}),
    locked(SECOND, 6, "L2"),
    write(SECOND, 7, *task(0, version="y", scheduled=False), deletes=[LOCK], lease="L2"),
    commit("hosts", 8, deletes=removed(0), checks={keys.task("north-web-1-0"): 7}),
]


def broken(*commits: Commit, **more) -> set[str]:
    return {violation.rule for violation in check(History(commits, **more)).violations}


def test_a_history_in_order_breaks_no_rule_and_puts_each_to_the_test():
    verdict = check(History(GOOD, looks=[Look("locks/", 8, {})]))
    assert verdict.violations == []
    assert verdict.asked.keys() >= RULES.keys() - {"refused", "moved"}
    assert verdict.taken_over == 0


def test_the_order_of_the_lines_does_not_matter():
    assert broken(*reversed(GOOD)) == set()


def test_an_acknowledged_commit_that_is_gone_or_elsewhere():
    assert broken(*GOOD, replace(commit("users", 9), revision=0)) == {"acknowledged"}
    assert broken(*GOOD, replace(commit("users", 9), told=10)) == {"acknowledged"}


@pytest.mark.parametrize("end", ["conflict", "lease lost", "refused"])
def test_a_refused_commit_that_is_there(end):
    assert broken(*GOOD, replace(commit("users", 9), end=end, told=0)) == {"refused"}
    assert broken(*GOOD, replace(commit("users", 9), end=end, told=0, revision=0)) == set()


@pytest.mark.parametrize("end", ["unknown", ""])
def test_a_commit_without_an_answer_may_be_there_or_not(end):
    without = replace(commit("users", 9), end=end, told=0, ended=float("inf"))
    assert broken(*GOOD, without) == set()
    assert broken(*GOOD, replace(without, revision=0)) == set()


def test_a_commit_that_overtakes_one_that_was_answered_before_it_began():
    late = replace(commit("users", 10), began=2.0, ended=2.5)
    assert broken(*GOOD, late) == {"order"}


def test_a_lost_update():
    assert broken(*GOOD, commit("users", 9, Put(SERVICE, "", "other"), checks={SERVICE: 5})) == {"guards"}
    assert broken(*GOOD, commit("users", 9, Put(SERVICE, "", "other"), checks={SERVICE: 0})) == {"guards"}
    assert broken(*GOOD, commit("users", 9, checks={"config/services/none": 3})) == {"guards"}


def test_a_commit_of_a_holder_that_has_given_its_lock_back():
    assert broken(*GOOD[:5], write(FIRST, 6, *task(0, version="z"))) == {"guards", "holder"}


def test_a_commit_of_a_holder_whose_lock_another_one_has_taken():
    stale = write(FIRST, 6, *task(1))
    verdict = check(History([*GOOD[:4], locked(SECOND, 5, "L2"), stale]))
    assert {one.rule for one in verdict.violations} >= {"guards", "holder"}
    assert verdict.taken_over == 1


def test_a_lock_that_is_taken_from_its_holder():
    thief = replace(locked(SECOND, 5, "L2"), checks={})
    assert broken(*GOOD[:4], thief) == {"taken"}
    assert broken(*GOOD[:4], replace(locked(FIRST, 5), checks={})) == set(), "its own"


def test_a_second_lock_while_the_first_one_stands():
    taken = replace(locked(SECOND, 5, "L2"), checks={LOCK: 3})  # not: once it is gone
    assert "guards" in broken(*GOOD[:4], taken, write(FIRST, 6, *task(1)))


def test_a_lease_that_is_used_after_others_saw_it_end():
    ended = commit(SECOND, 5, lock("L2"), checks={LOCK: 0})
    assert broken(*GOOD[:4], ended, commit(FIRST, 6, Put("locks/services/other", "L1", "x"))) == {"guards"}


def test_a_scheduler_without_a_fence_or_with_that_of_another_service():
    assert broken(*GOOD[:3], commit(FIRST, 4, *task(0))) == {"holder"}
    other = commit(FIRST, 4, Put(keys.service_lock("other"), "L1", "holder"), checks={keys.service_lock("other"): 0})
    wrong = commit(FIRST, 5, *task(0), fences={keys.service_lock("other"): "L1"})
    assert broken(*GOOD[:2], other, wrong) == {"holder"}


def test_a_scheduler_that_writes_under_the_lock_of_another_process():
    assert broken(*GOOD[:3], write(SECOND, 4, *task(0))) == {"holder"}


def test_a_scheduler_that_removes_a_task_without_a_fence():
    gone = commit(FIRST, 6, deletes=removed(0), checks={})
    assert "holder" in broken(*GOOD[:5], gone)


def test_one_of_the_two_keys_alone():
    for half in task(0):
        assert broken(*GOOD[:3], write(FIRST, 4, half)) == {"one host"}


def test_two_keys_that_differ():
    one, other = task(0)
    assert broken(*GOOD[:3], write(FIRST, 4, one, replace(other, digest="y"))) == {"one host"}
    first, later = write(FIRST, 4, one, other), write(FIRST, 5, one)  # the same value, from another commit
    assert broken(*GOOD[:3], first, later) == {"one host"}


def test_one_id_under_two_hosts():
    assert "one host" in broken(*GOOD[:4], write(FIRST, 5, *task(0, host="b")))
    one, here = task(0)
    there = replace(here, key=keys.host_task("b", "north-web-1-0"))
    assert broken(*GOOD[:3], write(FIRST, 4, one, here, there)) == {"one host"}


def test_one_key_that_is_left_behind():
    assert "one host" in broken(*GOOD[:4], commit("hosts", 5, deletes=removed(0)[:1]))
    assert "one host" in broken(*GOOD[:4], commit("hosts", 5, deletes=removed(0)[1:]))


def test_a_task_that_is_taken_from_a_living_host():
    moved = write(FIRST, 40, *task(0, host="b"), deletes=[removed(0)[1]])
    assert broken(*GOOD[:4], moved) == {"moved"}
    assert broken(*GOOD[:4], write(FIRST, 40, deletes=removed(0))) == {"moved"}


def test_a_task_may_be_taken_from_a_host_that_rejected_it_or_is_away_or_was_lately():
    moved = write(FIRST, 40, *task(0, host="b"), deletes=[removed(0)[1]])
    rejected = commit("hosts", 5, *task(0, rejected=True, version="y"))
    gone = commit("hosts", 6, deletes=[keys.live("a")])
    assert broken(*GOOD[:4], rejected, moved) == set()
    assert broken(*GOOD[:4], gone, moved) == set()
    assert broken(*GOOD[:4], gone, alive("a", 35), moved) == set()
    assert broken(*GOOD[:4], gone, alive("a", 7), moved) == {"moved"}


def test_one_task_more_than_max():
    third = write(FIRST, 5, *task(1), *task(2))
    assert broken(*GOOD[:4], third) == {"max"}


def test_a_task_that_is_being_stopped_counts_against_max_and_a_rejected_one_does_not():
    two = [*GOOD[:4], write(FIRST, 5, *task(1))]
    stopping = write(FIRST, 6, *task(0, version="y", scheduled=False))
    assert broken(*two, stopping, write(FIRST, 7, *task(2))) == {"max"}
    rejected = commit("hosts", 6, *task(0, version="y", rejected=True))
    assert broken(*two, rejected, write(FIRST, 7, *task(2))) == set()
    again = write(FIRST, 8, *task(0))
    assert broken(*two, rejected, write(FIRST, 7, *task(2)), again) == {"max"}


def test_tasks_that_were_there_before_max_was_lowered_are_excused_but_no_new_ones():
    lowered = [*GOOD[:4], write(FIRST, 5, *task(1)), declared(1, 6)]
    assert broken(*lowered, write(FIRST, 7, *task(0, version="y", scheduled=False))) == set()
    fewer = commit("hosts", 8, deletes=removed(0))
    assert broken(*lowered, fewer, write(FIRST, 9, *task(2))) == {"max"}


def test_a_task_of_a_service_that_nobody_declares():
    assert broken(*GOOD[1:3], write(FIRST, 4, *task(0))) == {"max"}


def test_a_commit_that_nobody_recorded():
    assert broken(*GOOD, strays=["ghost/1"]) == {"whole"}


def own_events(*commits: Commit) -> list[Event]:
    """What a store with a history of its own would have kept of ``commits``."""
    events: list[Event] = []
    for one in commits:
        events += [Event(one.revision, key, "") for key in one.deletes]
        events += [Event(one.revision, put.key, put.digest, put.lease) for put in one.puts]
        events.append(Event(one.revision, PREFIX + one.name, "mark"))
    return events


def test_a_history_of_the_store_that_agrees():
    assert broken(*GOOD, events=own_events(*GOOD)) == set()


def test_a_history_of_the_store_that_shows_less_or_more_or_something_else():
    events = own_events(*GOOD)
    of_task = next(event for event in events if event.key == keys.task("north-web-1-0"))
    assert "whole" in broken(*GOOD, events=[event for event in events if event is not of_task])
    assert "whole" in broken(*GOOD, events=[*events[:1], Event(1, "config/clusters/x", "x"), *events[1:]])
    other = [replace(event, digest="forged") if event is of_task else event for event in events]
    assert "whole" in broken(*GOOD, events=other)
    assert "whole" in broken(*GOOD, events=events[:-1])
    assert "whole" in broken(*GOOD, events=[*events, Event(9, SERVICE, "")])
    assert "whole" in broken(*GOOD, events=[*events, Event(9, PREFIX + "ghost/1", "mark")])
    kept = [event for event in events if event.key != LOCK or event.digest]
    assert "whole" in broken(*GOOD, events=kept)
    moved = [replace(event, revision=99) if event.key == PREFIX + GOOD[-1].name else event for event in events]
    assert "whole" in broken(*GOOD, events=moved)


def test_a_commit_that_the_stores_own_history_shows_after_the_end_of_its_lease():
    events = own_events(*GOOD[:4])
    expired = Event(3, LOCK, "")  # between the lock and the commit under it
    late = [*own_events(*GOOD[:3]), expired, *events[len(own_events(*GOOD[:3])) :]]
    assert broken(*GOOD[:4], events=late) == {"guards", "holder"}
    assert broken(*GOOD[:4], events=[*events, replace(expired, revision=5)]) == set()


def test_a_store_with_a_history_ends_no_lease_unseen():
    second = [*GOOD[:4], locked(SECOND, 5, "L2")]
    assert broken(*second) == set(), "without one, who knows"
    assert broken(*second, events=own_events(*second)) == {"guards", "taken"}
    assert broken(*GOOD[:4], events=own_events(*GOOD[:4]), looks=[Look("locks/", 4, {})]) == {"whole"}


def test_a_read_that_shows_something_else_than_was_recorded():
    def look(entries: dict[str, Held]) -> set[str]:
        return broken(*GOOD, looks=[Look("config/services/", 8, entries)])

    assert look({SERVICE: Held(1, "", "max 2")}) == set()
    assert look({}) == {"whole"}
    assert look({SERVICE: Held(1, "", "max 9")}) == {"whole"}
    assert look({SERVICE: Held(2, "", "max 2")}) == {"whole"}
    assert look({SERVICE: Held(1, "L1", "max 2")}) == {"whole"}
    assert look({SERVICE: Held(1, "", "max 2"), "config/services/x": Held(3, "", "x")}) == {"whole"}


def test_a_read_that_lacks_a_leased_key_shows_that_the_lease_has_ended():
    assert broken(*GOOD[:4], looks=[Look("locks/", 4, {})]) == set()
    assert broken(*GOOD[:5], looks=[Look("locks/", 4, {})]) == {"guards", "holder"}
