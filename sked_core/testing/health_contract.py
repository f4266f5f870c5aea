"""What every health provider has to pass. To hold one to it, in a test file of your own::

    class TestMyHealth(HealthContract):
        sample = MY_HEALTH

The tests open and close ports of this machine, and run a script as the user that runs them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sked_core.model.types import Check, Task, TaskId
from sked_core.testing.health_places import (
    CALL_SECONDS,
    CANARY,
    LONG,
    MASK,
    OUTAGE_SECONDS,
    HealthTests,
    Place,
    listening,
    tcp,
)


class HealthContract(HealthTests):
    """Inherit, say by ``sample`` which provider, and every test runs against it."""

    # --- registering

    def test_a_task_without_checks_is_healthy_while_it_is_registered(self, place: Place) -> None:
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        assert place.health(reader, task) is None
        assert task.id not in agent.registered()
        place.keep(agent, task)
        self.until(lambda: place.is_healthy(reader, task), "a task without checks is healthy")
        assert task.id in agent.registered()
        agent.deregister(task.id)
        self.until(lambda: place.health(reader, task) is None, "a task that was deregistered is not told of")
        assert task.id not in agent.registered()

    def test_a_check_that_says_nothing_is_none(self, place: Place) -> None:
        agent, task = place.provider("a"), place.task(Check())
        place.keep(agent, task)
        self.until(lambda: place.is_healthy(agent, task), "a check without http, tcp, script and ttl is not kept")

    def test_health_follows_what_a_check_finds(self, place: Place) -> None:
        agent, reader = place.provider("a"), place.provider()
        port = place.port()
        task = place.task(tcp(port))
        place.keep(agent, task)
        self.until(lambda: place.health(reader, task) is not None, "what was registered is told of")
        self.until(lambda: not place.is_healthy(reader, task), "nobody listens: unhealthy")
        with listening(port):
            self.until(lambda: place.is_healthy(reader, task), "somebody listens: healthy")
        self.until(lambda: not place.is_healthy(reader, task), "nobody listens any more: unhealthy")
        found = place.health(reader, task)
        assert found is not None and found.output.strip(), "it has to say why"

    def test_every_check_has_to_pass(self, place: Place) -> None:
        agent, other = place.provider("a"), place.port()
        with listening() as port:
            tasks = [place.task(tcp(port), tcp(other)), place.task(tcp(other), tcp(port), instance=1)]
            for task in tasks:
                place.keep(agent, task)
            with listening(other):
                for task in tasks:
                    self.until(lambda task=task: place.is_healthy(agent, task), "both pass")  # type: ignore[misc]
            for task in tasks:
                self.until(lambda task=task: not place.is_healthy(agent, task), "one of them fails")  # type: ignore[misc]

    def test_an_unchanged_registration_is_left_alone(self, place: Place) -> None:
        agent, reader = place.provider("a"), place.provider()
        slow = Check(script="sleep 1", interval="1s", timeout="20s")
        place.keep(agent, place.task(slow))
        self.until(lambda: place.is_healthy(reader, place.task(slow)), "the script passes")
        agent.register(place.task(slow))
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            assert place.is_healthy(reader, place.task(slow)), "it must not flip when it is registered once more"
            time.sleep(0.02)

    def test_a_changed_registration_takes_the_place_of_the_old_one(self, place: Place) -> None:
        agent, nobody = place.provider("a"), place.port()
        with listening() as port:
            task = place.task(tcp(port))
            place.keep(agent, task)
            self.until(lambda: place.is_healthy(agent, task), "somebody listens: healthy")
            agent.register(place.task(tcp(nobody)))
            self.until(lambda: not place.is_healthy(agent, task), "the new check fails, the old one is gone")
            agent.register(place.task(tcp(port)))
            self.until(lambda: place.is_healthy(agent, task), "the new check passes, the old one is gone")
        assert agent.registered() == {task.id}

    def test_deregistering_may_be_repeated_and_asks_for_nothing_that_is_there(self, place: Place) -> None:
        agent, kept, task = place.provider("a"), place.task(), place.task(instance=1)
        agent.deregister(task.id)
        for each in (kept, task):
            place.keep(agent, each)
        self.until(lambda: place.is_healthy(agent, kept), "registered")
        for _ in range(2):
            agent.deregister(task.id)
        self.until(lambda: place.health(agent, task) is None, "deregistered")
        assert agent.registered() == {kept.id}
        assert place.is_healthy(agent, kept), "another task must not go along"

    def test_what_is_registered_again_is_not_well_because_it_once_was(self, place: Place) -> None:
        agent, reader, nobody = place.provider("a"), place.provider(), place.port()
        with listening() as port:
            task = place.task(tcp(port))
            place.keep(agent, task)
            self.until(lambda: place.is_healthy(reader, task), "somebody listens: healthy")
        agent.deregister(task.id)
        self.until(lambda: place.health(reader, task) is None, "deregistered")
        agent.register(place.task(tcp(nobody)))
        for _ in range(20):
            assert not place.is_healthy(reader, task), "it was healthy before it was stopped, nothing says so now"
            time.sleep(0.02)

    # --- whose it is

    def test_only_services_that_are_asked_for_are_told(self, place: Place) -> None:
        agent, reader = place.provider("a"), place.provider()
        web, db, far = place.task(), place.task(service="db"), place.task(cluster=f"{place.cluster}x")
        for task in (web, db, far):
            place.keep(agent, task)
            self.until(lambda task=task: place.is_healthy(reader, task), "registered")  # type: ignore[misc]
        pairs = {task.id: (task.cluster.name, task.service) for task in (web, db, far)}
        assert set(reader.health([pairs[web.id]])) == {web.id}
        assert set(reader.health(list(pairs.values()))) == set(pairs)
        assert reader.health([]) == {}
        assert reader.health([(place.cluster, "none")]) == {}

    def test_tasks_of_other_hosts_are_told_of_and_left_alone(self, place: Place) -> None:
        one, other = place.provider("a"), place.provider("b")
        mine, theirs = place.task(), place.task(instance=1, host="b")
        place.keep(one, mine)
        place.keep(other, theirs)
        for provider in (one, other):
            for task in (mine, theirs):
                self.until(lambda p=provider, t=task: place.is_healthy(p, t), "anybody reads it")  # type: ignore[misc]
        assert one.registered() == {mine.id}
        assert other.registered() == {theirs.id}
        one.deregister(theirs.id)
        for _ in range(5):
            assert place.is_healthy(one, theirs), "a host can't take away what another one has registered"
            time.sleep(0.02)
        assert other.registered() == {theirs.id}

    def test_what_a_host_says_of_a_task_that_it_does_not_have_is_not_told(self, place: Place) -> None:
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        place.keep(agent, task)
        self.until(lambda: place.is_healthy(reader, task), "registered")
        here, there, pairs = place.host("a"), place.host("b"), [(place.cluster, "web")]
        assert set(reader.health(pairs, [here])) == {task.id}
        assert set(reader.health(pairs, {here: frozenset([task.id])})) == {task.id}
        for hosts in ({here: frozenset[TaskId]()}, {there: frozenset([task.id])}, {here: frozenset(["other"])}):
            assert reader.health(pairs, hosts) == {}, f"{hosts} says that {here} does not have it"

    def test_two_stores_may_share_one_engine(self, another_place: Callable[[], Place]) -> None:
        one, other = another_place(), another_place()
        other.at = one.at  # hosts of one name
        mine, theirs = one.provider("a"), other.provider("a")
        task, another = one.task(), other.task()
        one.keep(mine, task)
        other.keep(theirs, another)
        self.until(lambda: one.is_healthy(mine, task), "registered")
        self.until(lambda: other.is_healthy(theirs, another), "registered")
        assert mine.registered() == {task.id}
        assert theirs.registered() == {another.id}
        theirs.deregister(task.id)
        assert task.id in mine.registered()
        assert one.is_healthy(mine, task), "an agent of another store can't take it away"

    # --- telling

    def test_a_change_wakes_those_who_wait(self, place: Place) -> None:
        agent, reader, port = place.provider("a"), place.provider(), place.port()
        task = place.task(tcp(port))
        place.keep(agent, task)
        self.until(lambda: place.health(reader, task) is not None, "registered")
        with contextlib.ExitStack() as stack:
            for change, healthy in ((lambda: stack.enter_context(listening(port)), True), (stack.close, False)):
                self.wakes(place, reader, change, lambda wanted=healthy: place.is_healthy(reader, task) is wanted)  # type: ignore[misc]

    def test_a_task_that_comes_or_goes_wakes_those_who_wait(self, place: Place) -> None:
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        self.wakes(place, reader, lambda: place.keep(agent, task), lambda: place.is_healthy(reader, task))
        gone = lambda: place.health(reader, task) is None  # noqa: E731 - it is said once
        self.wakes(place, reader, lambda: agent.deregister(task.id), gone)

    def test_a_wait_ends_in_time_and_does_not_spin(self, place: Place) -> None:
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        place.keep(agent, task)
        self.until(lambda: place.is_healthy(reader, task), "registered")
        since = reader.wait(0, 0.1)
        begun, woken = time.monotonic(), 0
        while time.monotonic() - begun < 2.0:
            since = reader.wait(since, 0.5, [place.host("a")])
            woken += 1
        assert woken <= 60, f"{woken} wake-ups within 2 s for nothing"
        assert time.monotonic() - begun < CALL_SECONDS

    def test_secrets_are_masked_before_anybody_else_sees_them(self, place: Place) -> None:
        def mask(task_id: str, text: str) -> str:
            return text.replace(CANARY, MASK) if task_id == task.id else text

        task = place.task(Check(script=f"echo it is {CANARY}; exit 1", interval="1s", timeout="20s"))
        agent, reader = place.provider("a", mask), place.provider()
        place.keep(agent, task)
        said: set[str] = set()

        def fails_with_a_word() -> bool:
            found = place.health(reader, task)
            said.add("" if found is None else found.output)
            return any("it is" in each or MASK in each for each in said)

        self.until(fails_with_a_word, "what the script said is told")
        assert not [each for each in said if CANARY in each]

    # --- the next agent, and outages

    def test_the_next_agent_takes_over_what_is_registered(self, place: Place) -> None:
        reader, port = place.provider(), place.port()
        with listening(port):
            task, bare = place.task(tcp(port)), place.task(instance=1)
            first = place.provider("a")
            for each in (task, bare):
                first.register(each)
                self.until(lambda each=each: place.is_healthy(reader, each), "registered")  # type: ignore[misc]
            first.close()
            assert place.is_healthy(reader, task), "an agent that ends leaves registrations"
            second = place.provider("a")
            assert second.registered() == {task.id, bare.id}
            for each in (task, bare):
                place.keep(second, each)
                for _ in range(10):
                    assert place.is_healthy(reader, each), "a healthy task must not flip when an agent restarts"
        self.until(lambda: not place.is_healthy(reader, task), "the new agent's check fails")
        second.deregister(bare.id)
        self.until(lambda: place.health(reader, bare) is None, "the new agent can deregister it")
        assert second.registered() == {task.id}

    def test_the_next_agent_tidies_up_what_it_never_registered(self, place: Place) -> None:
        reader, first, task = place.provider(), place.provider("a"), place.task()
        place.keep(first, task)
        self.until(lambda: place.is_healthy(reader, task), "registered")
        first.close()
        second = place.provider("a")
        for task_id in second.registered():
            second.deregister(task_id)
        self.until(lambda: place.health(reader, task) is None, "the new agent can deregister it")
        assert second.registered() == frozenset()

    def test_what_is_not_known_is_not_told(self, place: Place) -> None:
        """Not that it is unhealthy, nor that nothing is registered: either would have a task stopped that is well. What
        was so a moment ago may still be told for a moment."""
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        place.keep(agent, task)
        self.until(lambda: place.is_healthy(reader, task), "registered")
        with place.outage():
            for provider in (agent, reader):
                self.unavailable(lambda p=provider: place.is_healthy(p, task))  # type: ignore[misc]
            self.unavailable(lambda: agent.registered() == {task.id})
            self.in_time(lambda: place.provider("b"))
        self.until(lambda: self.answers(lambda: place.is_healthy(reader, task)), "it is as it was")
        self.until(lambda: self.answers(lambda: agent.registered() == {task.id}), "it is as it was")

    def test_what_is_registered_and_deregistered_in_an_outage_is_so_after_it(self, place: Place) -> None:
        """At once or by the repeated call of an agent that was told Unavailable."""
        agent, reader, port = place.provider("a"), place.provider(), place.port()
        old, new, checked = place.task(), place.task(instance=1), place.task(tcp(port), instance=2)
        for each in (old, checked):
            place.keep(agent, each)
        self.until(lambda: place.is_healthy(reader, old), "registered")
        self.until(lambda: place.health(reader, checked) is not None, "registered")
        calls = [lambda: agent.deregister(old.id), lambda: place.keep(agent, new)]
        with listening(port):
            with place.outage():
                again = [call for call in calls if not self.in_time(lambda call=call: self.answers(call, True))]  # type: ignore[misc]
                time.sleep(OUTAGE_SECONDS)
            for call in again:
                self.until(lambda call=call: self.answers(call, True), "it answers again")  # type: ignore[misc]
            self.until(lambda: self.answers(lambda: place.is_healthy(reader, new)), "registered in the outage")
            self.until(lambda: self.answers(lambda: place.health(reader, old) is None), "deregistered in the outage")
            self.until(lambda: self.answers(lambda: place.is_healthy(reader, checked)), "it got well in the outage")

    # --- use by many, and the end

    def test_many_threads_may_use_it_at_once(self, place: Place) -> None:
        agent, reader = place.provider("a"), place.provider()
        tasks = [place.task(instance=number) for number in range(8)]

        def use(task: Task) -> None:
            for _ in range(3):
                place.keep(agent, task)
                place.health(reader, task)
                agent.deregister(task.id)
            place.keep(agent, task)

        with ThreadPoolExecutor(8) as pool:
            for used in [pool.submit(use, task) for task in tasks]:
                used.result(LONG)
        ids = {task.id for task in tasks}
        self.until(lambda: set(reader.health([(place.cluster, "web")])) == ids, "all of them are registered")
        self.until(lambda: all(place.is_healthy(reader, task) for task in tasks), "all of them are healthy")
        assert agent.registered() == ids

    def test_closing_ends_its_threads_and_may_be_repeated(self, place: Place) -> None:
        before = set(threading.enumerate())
        agent, task, bare = place.provider("a"), place.task(tcp(place.port())), place.task(instance=1)
        for each in (task, bare):
            place.keep(agent, each)
        self.until(lambda: place.is_healthy(agent, bare), "registered")
        since = agent.wait(0, 0.1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.answers, lambda: agent.wait(since, 1.0) >= 0)
            agent.close()
            waiting.result(LONG)
        agent.close()
        place.leave()
        self.until(lambda: not (set(threading.enumerate()) - before), "its threads end")
