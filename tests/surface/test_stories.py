"""The story of a task: what it is made of, in which order, and that it can be told when the task is gone."""

from __future__ import annotations

import pytest

from sked_core.client import settings
from sked_core.client.looking import evidence
from sked_core.client.looking.stories import story, story_json
from sked_core.client.notices import noticed
from sked_core.client.session import open_session
from sked_core.clock import SystemClock
from sked_core.errors import InvalidValue, NotFound
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.endings import Ending
from sked_core.model.types import Event, Failure, Liveness
from sked_core.runtime.journal import utc

ID = "default-helloworld-4-0"


def an_ending(task, *, ago: float = 720.0, **more) -> Ending:
    """How a run of ``task`` ended, so many seconds ago."""
    definition = task.task_definition
    fields = {
        "task": task.id,
        "cluster": task.cluster.name,
        "service": task.service,
        "instance": task.instance,
        "task_name": definition.name,
        "task_version": definition.version,
        "host": "node-1.local",
        "cause": "crashed",
        "reason": f"{task.service}: out of memory",
        "exits": {task.service: 137},
        "log": ["loading the index"],
        "attempts": 4,
        "started": utc(SystemClock().wall() - ago - 30),
        "ended": utc(SystemClock().wall() - ago),
    }
    return Ending(**fields | more)


@pytest.fixture
def sked_session(url, store):
    with open_session(settings.resolve(), "tester") as opened:
        yield opened


@pytest.fixture
def keep(store):
    """``keep(ending, …)``: as the agent of their host would, in the slots from 0."""

    def write(*endings: Ending) -> None:
        for slot, one in enumerate(endings):
            store.commit([Put(keys.ending(one.host, slot), encode(one))])

    return write


def tell(store, *events: Event) -> None:
    store.commit([Put(keys.events(f"{number:04}"), encode([one])) for number, one in enumerate(events)])


def an_event(what: str, *, ago: float, subject: str = f"task/{ID}", **more) -> Event:
    fields = {"who": "scheduler s", "service": "helloworld", "host": "node-1.local"} | more
    return Event(at=utc(SystemClock().wall() - ago), what=what, subject=subject, **fields)


class TestEndings:
    def test_they_are_found_by_task_service_and_host_oldest_first(self, store, keep, task):
        young, old = an_ending(task(), ago=10), an_ending(task(instance=1), ago=99)
        other = an_ending(task(service="web"), ago=50, host="b")
        keep(young, old)
        keep(other)
        assert evidence.endings(store) == [old, other, young]
        assert evidence.endings(store, task=ID) == [young]
        assert evidence.endings(store, service="web") == [other]
        assert evidence.endings(store, host="node-1.local") == [old, young]

    def test_the_previous_run_is_the_last_one_that_ran(self, store, keep, task):
        ran, rejected = an_ending(task(), ago=20), an_ending(task(), ago=10, cause="rejected", log=[])
        keep(an_ending(task(), ago=90), ran, rejected)
        assert evidence.previous(store, ID) == ran
        assert evidence.previous(store, ID, host="elsewhere") is None

    def test_what_no_agent_could_have_written_is_noticed_and_left_out(self, store, keep, task):
        keep(an_ending(task()))
        store.commit([Put(keys.ending("node-1.local", 9), b'{"task": 7}')])
        said: list[str] = []
        with noticed(said.append):
            assert len(evidence.endings(store)) == 1
        assert "endings/node-1.local/9 is left out" in said[0]


class TestStories:
    def test_one_that_is_gone_is_told_from_its_ending_alone(self, sked_session, keep, task):
        keep(an_ending(task()))
        told = story(sked_session, ID)
        assert told.headline == f"{ID} is gone: exit 137 (out of memory) on node-1.local, 12 min ago, after 4 attempts"
        assert (told.state, told.service, told.host, told.task_version) == ("gone", "helloworld", "node-1.local", 4)
        assert [(one.what, one.details) for one in told.moments] == [
            ("started", ()),
            ("ended", ["| loading the index"]),
        ]
        assert any(one.command == "sked explain helloworld" for one in told.advice)

    @pytest.mark.parametrize(
        ("exits", "reason", "said"),
        [
            ({"web": 3}, "web: exit 3", "exit 3"),
            ({"web": 127}, "web: exit 127 (no such command)", "exit 127 (no such command)"),
            ({"web": 137}, "web: killed by signal 9 (SIGKILL)", "exit 137, killed by signal 9 (SIGKILL)"),
            ({"app": 0, "web": 1}, "app: exit 0; web: exit 1", "exit 1"),
            ({}, "web: the host was restarted", "web: the host was restarted"),
            ({}, "", "it ended"),
        ],
    )
    def test_how_it_ended_is_said_once(self, sked_session, keep, task, exits, reason, said):
        keep(an_ending(task(), exits=exits, reason=reason, attempts=1))
        assert story(sked_session, ID).headline == f"{ID} is gone: {said} on node-1.local, 12 min ago"

    def test_one_that_is_gone_is_told_from_events_alone(self, sked_session, store):
        tell(
            store, an_event("task.issued", ago=300, decision=3), an_event("task.withdrawn", ago=100, why="scaled down")
        )
        told = story(sked_session, f"task/{ID}")
        assert told.headline == f"{ID} is gone: withdrawn from node-1.local: scaled down, 2 min ago"
        assert told.moments[0].text == "issued to node-1.local (decision 3)"

    def test_what_an_ending_tells_its_event_does_not_tell_again(self, sked_session, store, keep, task):
        keep(an_ending(task(), ago=100))
        events = [an_event("task.started", ago=130), an_event("task.failed", ago=99, why="helloworld: out of memory")]
        tell(store, *events, an_event("task.failed", ago=60, why="helloworld: exit 1"))
        assert [one.what for one in story(sked_session, ID).moments] == ["task.started", "ended", "task.failed"]

    def test_it_tells_that_its_host_was_lost_meanwhile_and_not_before(self, sked_session, store, keep, task):
        keep(an_ending(task(), ago=100))
        lost = {"subject": "host/node-1.local", "service": ""}
        tell(store, an_event("host.lost", ago=500, **lost), an_event("host.lost", ago=50, **lost))
        assert [one.what for one in story(sked_session, ID).moments] == ["started", "ended", "host.lost"]

    def test_of_one_that_fails_one_is_led_to_what_the_run_before_wrote(self, sked_session, store, keep, issue, task):
        issue(task())
        failure = Failure(host="node-1.local", attempts=2, reason="web: exit 1")
        store.commit([Put(keys.failure(ID), encode(failure))])
        asked = f"sked logs {ID} --previous"
        assert asked not in [one.command for one in story(sked_session, ID).advice], "no run has ended that is kept"
        keep(an_ending(task()))
        assert asked in [one.command for one in story(sked_session, ID).advice]

    @pytest.mark.parametrize(
        ("alive", "fields", "failure", "healthy", "state"),
        [
            (True, {}, None, True, "healthy"),
            (True, {}, None, False, "unhealthy"),
            (True, {}, None, None, "unknown"),
            (True, {}, Failure(host="node-1.local", attempts=2, reason="web: exit 1"), None, "failing"),
            (True, {}, Failure(host="another", attempts=2, reason="web: exit 1"), True, "healthy"),
            (True, {"rejected": True, "reject_reason": "no room"}, None, None, "rejected"),
            (True, {"scheduled": False}, None, None, "stopping"),
            (False, {}, None, True, "silent"),
        ],
    )
    def test_its_state_now_comes_first(self, sked_session, store, issue, task, alive, fields, failure, healthy, state):
        issue(task(**fields), healthy=healthy)
        if alive:
            store.commit([Put(keys.live("node-1.local"), encode(Liveness("a")))])
        if failure:
            store.commit([Put(keys.failure(ID), encode(failure))])
        told = story(sked_session, ID)
        assert told.state == state
        assert told.headline.startswith(f"{ID} ")
        assert told.advice

    def test_one_that_somebody_wrote_for_a_host_alone_has_a_story(self, sked_session, store, task):
        store.commit([Put(keys.host_task("node-1.local", ID), encode(task()))])
        assert story(sked_session, ID).task == task()

    def test_as_much_of_its_id_as_is_unique_will_do(self, sked_session, keep, task):
        keep(an_ending(task()), an_ending(task(service="web", instance=1)), an_ending(task(service="web", instance=2)))
        assert story(sked_session, "default-hello").id == ID
        with pytest.raises(NotFound) as raised:
            story(sked_session, "default-web-4")
        assert raised.value.hint == "several begin so: default-web-4-1, default-web-4-2"

    @pytest.mark.parametrize("remembered", [False, True])
    def test_one_whose_record_can_not_be_read_is_not_said_to_be_gone(self, sked_session, store, keep, task, remembered):
        store.commit([Put(keys.task(ID), b"{")])
        if remembered:
            keep(an_ending(task()))
        told = story(sked_session, ID)
        assert (told.state, told.advice[0].command) == ("unknown", "sked state check")
        assert told.headline == f"{ID} is issued, but its record can't be read"

    def test_of_one_that_never_was_it_names_the_nearest_that_is_kept(self, sked_session, store, keep, task, declare):
        keep(an_ending(task()))
        with pytest.raises(NotFound) as raised:
            story(sked_session, "default-heloworld-4-0")
        assert raised.value.hint == f"did you mean {ID}?"
        with pytest.raises(InvalidValue):
            story(sked_session, "../x")

    def test_programs_get_all_of_it(self, sked_session, store, issue, keep, task):
        issue(task(), healthy=False)
        keep(an_ending(task()))
        found = story_json(story(sked_session, ID))
        assert encode(found)
        assert set(found) == {
            *("id", "state", "headline", "service", "cluster", "host", "task_name", "task_version"),
            *("health", "failure", "rollout", "moments", "endings", "advice"),
        }
        store.commit([Delete(keys.ending("node-1.local", 0))])
        assert story_json(story(sked_session, ID))["endings"] == []
