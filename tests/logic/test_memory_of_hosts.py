"""Back-off, lost hosts and hosts that reject: what a scheduler remembers, with the time passed in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.interfaces.store import Revision
from sked_core.logic import backoff
from sked_core.logic.plan import Issued
from sked_core.logic.presence import BLIND_SECONDS, LOST_WINDOW_SECONDS, Absences, Rejections, most_lost
from sked_core.testing.builders import a_definition, a_task


@given(st.integers(1, 10_000), st.text(max_size=20))
def test_delays_are_bounded_jittered_and_repeatable(failures: int, key: str) -> None:
    plain = min(300.0, 2.0 ** (min(failures, 30) - 1))
    assert 0.75 * plain <= backoff.delay(failures, key) <= 1.25 * plain
    assert backoff.delay(failures, key) == backoff.delay(failures, key)


def test_what_failed_together_is_not_retried_together() -> None:
    assert len({backoff.delay(3, f"task-{i}") for i in range(100)}) > 90
    assert backoff.delay(0, "x") == 0.0


def test_a_host_is_lost_only_after_the_whole_time_without_an_outage() -> None:
    absences = Absences(60.0)
    absences.update({"a", "b"}, {"a"}, 0.0)
    absences.update({"a", "b"}, {"a"}, 59.9)
    assert not absences.lost("b")
    assert absences.next_change(59.0) == 1.0
    absences.update({"a", "b"}, {"a"}, 60.0)
    assert absences.lost("b")
    absences.reset()
    absences.update({"a", "b"}, {"a"}, 61.0)
    absences.update({"a", "b"}, {"a"}, 120.0)
    assert not absences.lost("b")
    absences.update({"a", "b"}, {"a", "b"}, 120.0)
    assert absences.next_change(120.0) == float("inf")


def test_when_many_hosts_vanish_at_once_only_a_few_are_believed_lost() -> None:
    hosts = {f"h{number}" for number in range(10)}
    absences = Absences(60.0)
    absences.update(hosts, {"h0"}, 0.0)
    absences.update(hosts, {"h0"}, 60.0)
    assert [host for host in sorted(hosts) if absences.lost(host)] == ["h1", "h2", "h3"]
    assert len(absences.held_back(60.0)) == 6
    assert absences.next_change(60.0) == LOST_WINDOW_SECONDS
    absences.update(hosts, {"h0"}, 60.0 + LOST_WINDOW_SECONDS)
    assert sum(absences.lost(host) for host in hosts) == 6
    absences.update(hosts, hosts, 700.0)
    assert not any(absences.lost(host) for host in hosts)


def test_while_no_host_is_there_none_is_lost_and_the_first_to_return_is_not_given_all() -> None:
    absences = Absences(lost_after=10.0)
    hosts = [f"h{n}" for n in range(3)]
    absences.update(hosts, {}, 0.0)
    absences.update(hosts, {}, 60.0)
    assert not any(absences.lost(host) for host in hosts)
    absences.update(hosts, {"h0"}, 61.0)
    absences.update(hosts, {"h0"}, 69.0)
    assert not any(absences.lost(host) for host in hosts)
    absences.update(hosts, {"h0"}, 71.0)
    assert absences.lost("h1")


def test_the_second_to_return_has_its_whole_time_however_long_ago_anybody_looked() -> None:
    absences = Absences(lost_after=10.0)
    hosts = ["h0", "h1"]
    absences.update(hosts, {}, 0.0)
    assert absences.next_change(0.0) == float("inf")
    absences.update(hosts, {"h0"}, 9.0)
    absences.update(hosts, {"h0"}, 18.0)
    assert not absences.lost("h1")
    absences.update(hosts, {"h0"}, 19.0)
    assert absences.lost("h1")


def test_the_last_to_return_when_the_way_to_all_of_them_is_mended_has_its_whole_time_from_then() -> None:
    absences = Absences(lost_after=10.0)
    hosts = [f"h{n}" for n in range(4)]
    absences.update(hosts, {}, 0.0)
    absences.update(hosts, {"h0"}, 100.0)
    absences.update(hosts, {"h0", "h1", "h2"}, 109.0)
    absences.update(hosts, {"h0", "h1", "h2"}, 118.0)
    assert not absences.lost("h3"), "its time began when no more were away than may be lost"
    absences.update(hosts, {"h0", "h1", "h2"}, 119.0)
    assert absences.lost("h3"), "it is gone for good"


def test_where_most_were_cut_off_those_that_return_late_are_not_lost_in_place_of_those_that_returned() -> None:
    absences = Absences(lost_after=60.0)
    hosts = [f"h{n}" for n in range(10)]
    absences.update(hosts, {"h0"}, 0.0)
    absences.update(hosts, {"h0"}, 60.0)
    assert sorted(absences.declared) == ["h1", "h2", "h3"]
    for moment, back in enumerate(range(1, 9)):  # the network is mended: one of them each second
        absences.update(hosts, hosts[: back + 1], 300.0 + moment)
        assert absences.declared.keys() <= {"h2", "h3"}, "nobody else"
    absences.update(hosts, hosts[:9], 364.9)
    assert not absences.declared
    absences.update(hosts, hosts[:9], 365.0)  # since 305 no more than three are away
    assert list(absences.declared) == ["h9"]


def test_a_host_that_comes_and_goes_does_not_keep_others_that_are_gone_from_being_lost() -> None:
    absences = Absences(lost_after=60.0)
    hosts = [f"h{n}" for n in range(10)]
    lost_at: dict[str, float] = {}
    for now in range(0, 200, 10):
        there = set(hosts[4:]) | ({"h0"} if now // 20 % 2 else set())
        absences.update(hosts, there, float(now))
        lost_at |= dict.fromkeys(absences.declared.keys() - lost_at.keys(), now)
    assert lost_at.keys() == {"h1", "h2", "h3"} and max(lost_at.values()) <= 20 + 60


@pytest.mark.parametrize("lost_after", [60.0, LOST_WINDOW_SECONDS, 3 * LOST_WINDOW_SECONDS])
def test_nor_does_it_however_long_a_host_may_be_away(lost_after: float) -> None:
    absences, hosts, now = Absences(lost_after), [f"h{n}" for n in range(10)], 0.0
    while not absences.declared:
        absences.update(hosts, set(hosts[4:]) | ({"h0"} if now // 50 % 2 else set()), now)
        now += 10.0
        assert now < 2 * lost_after + 100
    assert absences.declared.keys() == {"h1", "h2", "h3"}


def test_where_one_of_two_hosts_comes_and_goes_the_other_one_is_lost_once_the_first_was_there_so_long() -> None:
    absences, now, there = Absences(lost_after=60.0), 0.0, 0.0
    while not absences.declared:
        alive = now % 50 >= 5
        absences.update(["h0", "h1"], {"h1"} if alive else (), now)
        now, there = now + 1.0, there + alive
        assert there < 2 * 60
    assert list(absences.declared) == ["h0"] and alive and there > 60


def test_the_first_to_return_is_not_given_all_by_what_was_counted_before_nobody_was_there() -> None:
    absences, hosts = Absences(lost_after=60.0), ["h0", "h1", "h2"]
    absences.update(hosts, {"h0", "h1"}, 0.0)
    absences.update(hosts, {"h0", "h1"}, 59.0)
    absences.update(hosts, (), 59.5)
    assert absences.next_change(59.5) == float("inf") and not absences.held_back(1000.0)
    absences.update(hosts, {"h0"}, 1000.0)
    absences.update(hosts, {"h0"}, 1059.0)
    assert not absences.declared
    absences.update(hosts, {"h0"}, 1060.0)
    assert absences.declared.keys() == {"h1", "h2"}


def test_hosts_that_were_lost_long_before_an_outage_leave_the_room_to_others_after_it() -> None:
    """Their records stay until somebody removes them, and their tasks have been replaced."""
    absences, hosts, gone = Absences(lost_after=60.0), [f"h{n}" for n in range(10)], {"h0", "h1", "h2", "h3"}
    for now in range(0, 1500, 30):
        absences.update(hosts, set(hosts) - gone, float(now))
    assert absences.declared.keys() == gone
    for outage in range(1500, 3000, 300):
        absences.reset()
        for now in range(outage, outage + 300, 30):
            absences.update(hosts, set(hosts) - gone - {"h9"}, float(now))
        assert absences.declared.keys() == gone | {"h9"}


def test_a_host_that_was_back_since_an_outage_takes_room_when_it_is_lost_again() -> None:
    absences, hosts = Absences(lost_after=60.0), ["h0", "h1", "h2", "h3"]
    for now in (0.0, 60.0, 1000.0):
        absences.update(hosts, {"h2", "h3"}, now)
    absences.reset()
    absences.update(hosts, hosts, 1001.0)
    for now in (1002.0, 1062.0):
        absences.update(hosts, {"h3"}, now)
    assert absences.declared.keys() == {"h0", "h1"} and absences.held_back(1062.0) == ["h2"]


@settings(deadline=None)
@given(
    st.integers(1, 7),
    st.sampled_from([5.0, 60.0, 900.0]),
    st.lists(st.tuples(st.floats(0.1, 400.0), st.integers(0, 127), st.booleans(), st.booleans()), max_size=40),
)
def test_whatever_has_been_who_is_gone_for_good_is_lost_in_time_and_never_more_at_once_than_may_be(
    size: int, lost_after: float, steps: list[tuple[float, int, bool, bool]]
) -> None:
    """Steps: how much later, who is there, whether the store was away, whether the scheduler meant to look earlier."""
    absences, hosts, now = Absences(lost_after), [f"h{n}" for n in range(size)], 0.0
    told: dict[str, float] = {}

    def look(there: set[str]) -> None:
        before = set(absences.declared)
        absences.looked(now)
        absences.update(hosts, there, now)
        absences.awaited = now + min(30.0, absences.next_change(now))
        assert not absences.declared.keys() & there
        assert there or not absences.declared.keys() - before
        told.update(dict.fromkeys(absences.declared.keys() - before - absences.before, now))
        assert sum(now - told[host] < LOST_WINDOW_SECONDS for host in absences.declared) <= most_lost(size)

    for later, who, away, early in steps:
        now += later
        if away:
            absences.reset()
        if early:
            absences.awaited = now
        look({host for number, host in enumerate(hosts) if who >> number & 1})
    ends = now + 3 * lost_after + (size + 2) * LOST_WINDOW_SECONDS
    while now < ends:
        now += min(30.0, max(absences.next_change(now), 0.01))
        look({hosts[0]})
    assert absences.declared.keys() == {*hosts[1:]}


def test_a_scheduler_that_is_late_all_the_time_still_takes_what_is_gone_for_lost() -> None:
    absences = Absences(lost_after=60.0)
    rounds = 0
    while not absences.declared and rounds < 100:
        rounds += 1
        absences.looked(rounds * 300.0)
        absences.update(["h0", "h1"], {"h0"}, rounds * 300.0)
        absences.awaited = rounds * 300.0 + 60.0
    assert rounds == 1 + 60 / BLIND_SECONDS


def test_who_left_before_an_outage_of_all_has_its_whole_time_once_some_are_back() -> None:
    """Also while too many are away for the brake to lift."""
    absences, hosts = Absences(60.0), [f"h{number}" for number in range(10)]
    absences.update(hosts, hosts, 0.0)
    absences.update(hosts, hosts[1:], 10.0)
    absences.update(hosts, [], 60.0)
    for now in (300.0, 330.0, 359.0):
        absences.update(hosts, hosts[5:], now)
        assert not absences.declared
    absences.update(hosts, hosts[5:], 360.0)
    assert len(absences.declared) == most_lost(10)


def test_hosts_that_were_lost_long_before_an_outage_put_off_no_other() -> None:
    absences, hosts = Absences(60.0), [f"h{number}" for number in range(10)]
    absences.update(hosts, hosts[3:], 0.0)
    absences.update(hosts, hosts[3:], 60.0)
    assert len(absences.declared) == 3
    absences.reset()
    absences.update(hosts, hosts[3:], 1000.0)
    for now in (1030.0, 1060.0):
        absences.update(hosts, hosts[4:], now)
    assert not absences.lost("h3")
    absences.update(hosts, hosts[4:], 1090.0)
    assert absences.lost("h3"), "counted with those three it would have been begun anew once they were lost again"


def test_what_rejected_one_version_is_asked_for_the_next_one() -> None:
    rejections = Rejections()
    bad, mended = a_definition(version=1), a_definition(version=2)
    rejections.update([Issued(a_task("h1", 0, bad, rejected=True, reject_reason="no image"), Revision(1))], 0.0)
    assert rejections.avoided("web", bad, 0.1) and not rejections.avoided("web", mended, 0.1)


def test_that_every_host_rejects_is_believed_once_it_was_said_often_enough() -> None:
    rejections = Rejections()
    bad = a_definition(version=1)
    for number, host in enumerate(("h1", "h2", "h1")):
        task = a_task(host, 0, bad, rejected=True, reject_reason=f"no image on {host}")
        assert rejections.everywhere("web", bad, ("h1", "h2"), 3) == ""
        rejections.update([Issued(task, Revision(number + 1))], float(number))
    assert rejections.everywhere("web", bad, ("h1", "h2"), 3) == "no image on h1; no image on h2"
    assert rejections.everywhere("web", bad, ("h1", "h2", "h3"), 3) == ""
    rejections.forget("web", bad.name, bad.version + 1)
    assert rejections.everywhere("web", bad, ("h1", "h2"), 3), "another version"
    rejections.forget("web", bad.name, bad.version)
    assert rejections.everywhere("web", bad, ("h1", "h2"), 3) == ""


def test_each_rejection_counts_once_and_the_host_is_left_alone_ever_longer() -> None:
    rejections = Rejections()
    first = Issued(a_task("h1", 0, rejected=True, reject_reason="port 1 taken\nport 2 too"), Revision(5))
    rejections.update([first], 0.0)
    rejections.update([first], 0.5)
    assert rejections.avoided("web", a_definition(), 0.6) == {"h1": "rejected this service: port 1 taken; port 2 too"}
    assert rejections.avoided("other", a_definition(), 0.6) == {}
    wait = rejections.next_change(0.0)
    assert 0.75 <= wait <= 1.25
    assert rejections.avoided("web", a_definition(), wait) == {}
    again = Issued(first.task, Revision(9))
    rejections.update([again], 10.0)
    assert 1.5 <= rejections.next_change(10.0) <= 2.5
    rejections.update([], 1000.0)
    assert rejections.by_host == {}
