"""What every health provider has to pass. To hold one to it, in a test file of your own::

    class TestMyHealth(HealthContract):
        sample = MY_HEALTH

The tests open and close ports of this machine, and run a script as the user that runs them.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sked_core.clock import SystemClock
from sked_core.errors import Unavailable
from sked_core.interfaces.health import HealthContext, HealthProvider
from sked_core.interfaces.store import Store
from sked_core.model.types import Check, Cluster, Container, Health, Task, TaskDefinition, TaskId
from sked_core.runtime.probes import ProbeHealth
from sked_core.testing.builders import an_open_policy
from sked_core.testing.samples import HealthPlace, HealthSample

CANARY = "s3cr3t-canary-51c0"
MASK = "(masked)"
CALL_SECONDS = 20.0
"""Within which every call ends, also when nothing answers."""
LONG = 120.0
OUTAGE_SECONDS = 2.5
"""So long that whoever works in the background notices."""


class Removable:
    """A store as it is, until ``away`` is set: then it answers nothing."""

    def __init__(self, store: Store, away: threading.Event) -> None:
        self._store, self._away = store, away

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "close":
            return found

        def ask(*arguments: Any) -> Any:
            if self._away.is_set():
                raise Unavailable("the kit took the store away")
            return found(*arguments)

        return ask


class Place:
    """Where one test tries a provider: agents of hosts and readers, all with the same store. ``at`` names what is
    registered, so that tests can share an engine."""

    def __init__(self, sample: HealthSample, place: HealthPlace, at: str) -> None:
        self.sample, self.at = sample, at
        self.cluster, self.uid = f"c{at}", f"uid-{at}"
        self._place = place
        self._away = threading.Event()
        self._opened: list[tuple[HealthProvider, Store]] = []
        self._kept: list[tuple[HealthProvider, TaskId]] = []

    def provider(self, host: str = "", mask: Callable[[str, str], str] = lambda _, text: text) -> HealthProvider:
        """That of the agent of a host, or of somebody who only reads."""
        store: Any = Removable(self._place.open(), self._away)
        name = f"{host}-{self.at}" if host else ""
        policy = an_open_policy()
        context = HealthContext(store, self._place.url, name, SystemClock(), self.uid, policy, mask, ProbeHealth)
        made = self.sample.make(context)
        self._opened.append((made, store))
        return made

    def host(self, name: str) -> str:
        return f"{name}-{self.at}"

    def task(self, *checks: Check, instance: int = 0, service: str = "web", host: str = "a", cluster: str = "") -> Task:
        """With a container for each check."""
        spec = {"start": "exec sleep 1000"}
        containers = [
            Container(name=f"c{number}", type="bash", executor=spec, checks=[check] if check else None)
            for number, check in enumerate(checks or [None])
        ]
        definition = TaskDefinition(name=service, version=1, containers=containers)
        return Task(
            cluster=Cluster(name=cluster or self.cluster),
            task_definition=definition,
            service=service,
            instance=instance,
            host=self.host(host),
        )

    def keep(self, provider: HealthProvider, task: Task) -> None:
        """Register, to be taken away when the test ends."""
        self._kept.append((provider, task.id))
        provider.register(task)

    def health(self, provider: HealthProvider, task: Task) -> Health | None:
        return provider.health([(task.cluster.name, task.service)]).get(task.id)

    def is_healthy(self, provider: HealthProvider, task: Task) -> bool:
        found = self.health(provider, task)
        return found is not None and found.healthy

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        with self._place.outage() if self._place.outage else contextlib.nullcontext():
            self._away.set()
            try:
                yield
            finally:
                self._away.clear()

    def leave(self) -> None:
        for provider, task_id in self._kept:
            with contextlib.suppress(Unavailable):  # of those that were closed meanwhile
                provider.deregister(task_id)
        for provider, store in self._opened:
            provider.close()
            store.close()


class HealthContract:
    """``sample`` says which provider. ``patience``: seconds within which what must happen has to have happened."""

    sample: ClassVar[HealthSample]
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def another_place(self, tmp_path: Path) -> Iterator[Callable[[], Place]]:
        made: list[Place] = []

        def make() -> Place:
            folder = tmp_path / str(len(made))
            folder.mkdir()
            made.append(Place(self.sample, self.sample.fresh(folder), secrets.token_hex(4)))
            return made[-1]

        yield make
        for place in made:
            place.leave()

    @pytest.fixture
    def place(self, another_place: Callable[[], Place]) -> Place:
        return another_place()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            time.sleep(0.02)

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
        port = _free_port()
        task = place.task(_tcp(port))
        place.keep(agent, task)
        self.until(lambda: place.health(reader, task) is not None, "what was registered is told of")
        self.until(lambda: not place.is_healthy(reader, task), "nobody listens: unhealthy")
        with _listening(port):
            self.until(lambda: place.is_healthy(reader, task), "somebody listens: healthy")
        self.until(lambda: not place.is_healthy(reader, task), "nobody listens any more: unhealthy")
        found = place.health(reader, task)
        assert found is not None and found.output.strip(), "it has to say why"

    def test_every_check_has_to_pass(self, place: Place) -> None:
        agent, other = place.provider("a"), _free_port()
        with _listening() as port:
            tasks = [place.task(_tcp(port), _tcp(other)), place.task(_tcp(other), _tcp(port), instance=1)]
            for task in tasks:
                place.keep(agent, task)
            with _listening(other):
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
        agent, nobody = place.provider("a"), _free_port()
        with _listening() as port:
            task = place.task(_tcp(port))
            place.keep(agent, task)
            self.until(lambda: place.is_healthy(agent, task), "somebody listens: healthy")
            agent.register(place.task(_tcp(nobody)))
            self.until(lambda: not place.is_healthy(agent, task), "the new check fails, the old one is gone")
            agent.register(place.task(_tcp(port)))
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
        agent, reader, nobody = place.provider("a"), place.provider(), _free_port()
        with _listening() as port:
            task = place.task(_tcp(port))
            place.keep(agent, task)
            self.until(lambda: place.is_healthy(reader, task), "somebody listens: healthy")
        agent.deregister(task.id)
        self.until(lambda: place.health(reader, task) is None, "deregistered")
        agent.register(place.task(_tcp(nobody)))
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
        agent, reader, port = place.provider("a"), place.provider(), _free_port()
        task = place.task(_tcp(port))
        place.keep(agent, task)
        self.until(lambda: place.health(reader, task) is not None, "registered")
        with contextlib.ExitStack() as stack:
            for change, healthy in ((lambda: stack.enter_context(_listening(port)), True), (stack.close, False)):
                self._wakes(place, reader, change, lambda wanted=healthy: place.is_healthy(reader, task) is wanted)  # type: ignore[misc]

    def test_a_task_that_comes_or_goes_wakes_those_who_wait(self, place: Place) -> None:
        agent, reader, task = place.provider("a"), place.provider(), place.task()
        self._wakes(place, reader, lambda: place.keep(agent, task), lambda: place.is_healthy(reader, task))
        gone = lambda: place.health(reader, task) is None  # noqa: E731 - it is said once
        self._wakes(place, reader, lambda: agent.deregister(task.id), gone)

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
        reader = place.provider()
        with _listening() as port:
            task, bare = place.task(_tcp(port)), place.task(instance=1)
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
                self._unavailable(lambda p=provider: place.is_healthy(p, task))  # type: ignore[misc]
            self._unavailable(lambda: agent.registered() == {task.id})
            self._in_time(lambda: place.provider("b"))
        self.until(lambda: self._answers(lambda: place.is_healthy(reader, task)), "it is as it was")
        self.until(lambda: self._answers(lambda: agent.registered() == {task.id}), "it is as it was")

    def test_what_is_registered_and_deregistered_in_an_outage_is_so_after_it(self, place: Place) -> None:
        """At once or by the repeated call of an agent that was told Unavailable."""
        agent, reader, port = place.provider("a"), place.provider(), _free_port()
        old, new, checked = place.task(), place.task(instance=1), place.task(_tcp(port), instance=2)
        for each in (old, checked):
            place.keep(agent, each)
        self.until(lambda: place.is_healthy(reader, old), "registered")
        self.until(lambda: place.health(reader, checked) is not None, "registered")
        calls = [lambda: agent.deregister(old.id), lambda: place.keep(agent, new)]
        with _listening(port):
            with place.outage():
                again = [call for call in calls if not self._in_time(lambda call=call: self._answers(call, True))]  # type: ignore[misc]
                time.sleep(OUTAGE_SECONDS)
            for call in again:
                self.until(lambda call=call: self._answers(call, True), "it answers again")  # type: ignore[misc]
            self.until(lambda: self._answers(lambda: place.is_healthy(reader, new)), "registered in the outage")
            self.until(lambda: self._answers(lambda: place.health(reader, old) is None), "deregistered in the outage")
            self.until(lambda: self._answers(lambda: place.is_healthy(reader, checked)), "it got well in the outage")

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
        agent, task, bare = place.provider("a"), place.task(_tcp(_free_port())), place.task(instance=1)
        for each in (task, bare):
            place.keep(agent, each)
        self.until(lambda: place.is_healthy(agent, bare), "registered")
        since = agent.wait(0, 0.1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._answers, lambda: agent.wait(since, 1.0) >= 0)
            agent.close()
            waiting.result(LONG)
        agent.close()
        place.leave()
        self.until(lambda: not (set(threading.enumerate()) - before), "its threads end")

    # --- helpers

    def _wakes(
        self, place: Place, reader: HealthProvider, change: Callable[[], object], seen: Callable[[], object]
    ) -> None:
        """``change`` is seen by somebody who looks only when ``wait`` wakes."""
        since = reader.wait(0, 0.1)
        since = reader.wait(since, 0.5)  # what was on its way
        begun = time.monotonic()

        def watch() -> None:
            at = since
            while not seen():
                assert time.monotonic() - begun < self.patience, "wait slept through the change"
                at = reader.wait(at, 2 * self.patience)

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)
            change()
            watching.result(LONG + 2 * self.patience)
        assert time.monotonic() - begun < self.patience, "wait slept through the change"

    def _in_time(self, call: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        try:
            return call()
        finally:
            assert time.monotonic() - begun < CALL_SECONDS, "every call has to end within a deadline"

    def _unavailable(self, known: Callable[[], bool]) -> None:
        """``known`` raises Unavailable, after some moments in which it may hold."""

        def raises() -> bool:
            try:
                assert known(), "it tells what it does not know"
            except Unavailable:
                return True
            return False

        self.until(lambda: self._in_time(raises), "it is Unavailable what can't be asked for")

    def _answers(self, call: Callable[[], Any], instead: Any = None) -> Any:
        """What ``call`` returns, or ``instead`` of nothing; False where it raises Unavailable."""
        try:
            found = call()
        except Unavailable:
            return False
        return instead if found is None else found


def _tcp(port: int) -> Check:
    return Check(tcp=f"127.0.0.1:{port}", interval="1s", timeout="10s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _listening(port: int = 0) -> Iterator[int]:
    """Connections are taken until the end of the block, by the kernel."""
    with socket.create_server(("127.0.0.1", port), backlog=1000) as server:
        yield int(server.getsockname()[1])
