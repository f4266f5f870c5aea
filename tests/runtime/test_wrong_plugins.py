"""Executors, health and secrets providers of plugins that do wrong: only what uses them fails, and they are named."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.issuing import HOST
from runtime.solo import Solo
from sked_core.errors import InvalidManifest, PluginError, Unavailable
from sked_core.interfaces.executor import CommandRunner, ExecutorContext, Handle, LogSource, Policed
from sked_core.model import keys
from sked_core.model.ports import MAX_PORTS, Binding, bindings_of
from sked_core.model.validate import validate
from sked_core.model.yaml_source import parse
from sked_core.plugin import HealthContext, Problem, Secret, SecretContext, SystemClock
from sked_core.runtime.container_ports import ContainerPorts
from sked_core.runtime.plugins import aside, asked
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.builders import a_container, a_definition, a_task, an_open_policy
from sked_core.testing.fakes import FakeEngine, FakeExecutor

OVER = threading.Event()
NOWHERE = ExecutorContext(host="", store_uid="", state_dir=Path("nowhere"))
MANIFEST = b"""\
task_definitions:
  - name: web
    version: 1
    containers:
      - {name: main, type: other, executor: {deep: {list: [1]}}}
"""


def spins(*_: object) -> Any:
    return [None for _ in itertools.count() if False]


def sleeps(*_: object) -> Any:
    OVER.wait()


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def gives(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


def spoils(executor: Any, *given: Any) -> Any:
    """Changes all that it is given, as deep as it goes."""
    for one in given:
        spec = one if isinstance(one, dict) else getattr(one, "executor", {})
        if isinstance(one, dict | Mapping) and "deep" not in spec:
            with contextlib.suppress(TypeError):
                one["SPOILT"] = "yes"  # type: ignore[index]
        if "deep" in spec:
            spec["deep"]["list"].append("spoilt")
            spec.clear()
    return frozenset()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]) -> Iterator[None]:
    """Nobody waits long here for what never comes, and nothing is left of it in the end."""
    monkeypatch.setattr(aside, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(asked, "WAIT_SECONDS", 1.0)
    OVER.clear()
    yield
    OVER.set()
    until("all are back", lambda: not any(one.name.startswith("sked-aside: ") for one in threading.enumerate()))


def an_executor(**methods: Callable[..., Any]) -> Callable[[ExecutorContext], Any]:
    """The factory of one that is right but for some methods."""
    engine = FakeEngine()
    wrong = type("Wrong", (FakeExecutor,), methods)
    return lambda context: wrong(engine, context)


def checkers(offering: Any, factory: Any) -> Any:
    return spec_checkers(offering(sked_executors={"other": factory, "bash": FakeEngine().executor}))


HANGS = {"sleeps": sleeps, "spins": spins, "endless": gives(itertools.repeat(1))}
FAILS = {
    "raises": raises(ValueError("a bug")),
    "exits": raises(SystemExit(3)),
    "interrupts": raises(KeyboardInterrupt()),
    "nothing": gives(None),
}
NAMED = "executor other of fakes "


class TestExecutorsThatAreAskedOfManifests:
    @pytest.mark.parametrize("method", ["validate", "ports"])
    @pytest.mark.parametrize("wrong", [*FAILS, "sleeps", "spins"])
    def test_one_that_fails_or_hangs_ends_the_command_with_its_name(
        self, offering: Any, method: str, wrong: str
    ) -> None:
        executors = checkers(offering, an_executor(**{method: {**FAILS, **HANGS}[wrong]}))
        with pytest.raises(PluginError, match=f"^{NAMED}") as told:
            validate([parse(MANIFEST, "web.yml")], stored=None, executors=executors, schedulers=["default"])
        assert told.value.__notes__ == ['asked about containers[0], container "main"']
        other = MANIFEST.replace(b"other", b"bash")
        assert validate([parse(other, "")], stored=None, executors=executors, schedulers=["default"])

    @pytest.mark.parametrize("made", [raises(SystemExit(0)), sleeps, spins])
    def test_nor_does_one_that_can_not_even_be_made(self, offering: Any, made: Any) -> None:
        executors = checkers(offering, made)
        with pytest.raises(PluginError, match=f"^{NAMED}"):
            executors["other"].validate({})
        assert executors["bash"].validate({}) == []

    @pytest.mark.parametrize("answer", [["text"], [Problem(1, "x")], [Problem("x", None)]])  # type: ignore[arg-type]
    def test_problems_that_are_none_are_no_answer(self, offering: Any, answer: Any) -> None:
        with pytest.raises(PluginError, match=f"^{NAMED}gave an object of type .* for a problem"):
            checkers(offering, an_executor(validate=gives(answer)))["other"].validate({})

    def test_an_endless_list_of_problems_comes_to_an_end(self, offering: Any) -> None:
        problem = Problem("x", "wrong")
        checker = checkers(offering, an_executor(validate=gives(itertools.repeat(problem))))["other"]
        assert checker.validate({}) == [problem] * asked.MAX_PROBLEMS

    @pytest.mark.parametrize("method", ["ports", "bindings"])
    @pytest.mark.parametrize(
        "ports", [range(1, 65536), range(1, 10_000_001), itertools.cycle([80, 81])], ids=["all", "millions", "endless"]
    )
    def test_more_ports_than_a_container_may_have_are_a_mistake_of_the_manifest(
        self, offering: Any, method: str, ports: Any
    ) -> None:
        made = ports if method == "ports" else map(Binding, ports)
        with pytest.raises(InvalidManifest, match=f"a container takes {MAX_PORTS} host ports at most"):
            validate(
                [parse(MANIFEST, "web.yml")],
                stored=None,
                executors=checkers(offering, an_executor(**{method: gives(made)})),
                schedulers=["default"],
            )

    @pytest.mark.parametrize("ports", [["80"], [0], [65536], [None], [Binding(80)], "80"])
    def test_what_is_no_port_is_a_mistake_too(self, offering: Any, ports: Any) -> None:
        executor = checkers(offering, an_executor(ports=gives(ports)))["other"]
        with pytest.raises(InvalidManifest, match="expected a port from 1 to 65535"):
            validate([parse(MANIFEST, "")], stored=None, executors={"other": executor}, schedulers=["default"])

    def test_as_many_as_it_may_have_are_fine(self, offering: Any) -> None:
        executor = checkers(offering, an_executor(ports=gives(range(1, MAX_PORTS + 1))))["other"]
        assert len(bindings_of(executor, {}, 0)) == MAX_PORTS

    @pytest.mark.parametrize("method", ["validate", "ports"])
    def test_what_it_does_to_a_spec_is_done_to_a_copy(self, offering: Any, method: str) -> None:
        executor = checkers(offering, an_executor(**{method: spoils}))["other"]
        spec = {"deep": {"list": [1]}}
        getattr(executor, method)(*[spec, 0][: 1 + (method == "ports")])
        assert spec == {"deep": {"list": [1]}}

    def test_after_a_hang_it_is_left_alone_and_others_wait_no_more(
        self, offering: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []

        def hangs(*_: object) -> Any:
            calls.append(1)
            return sleeps()

        executor = checkers(offering, an_executor(validate=hangs))["other"]
        for _ in range(5):
            with pytest.raises(PluginError, match=r"did not come back within 1 s: it is left alone for 60 s"):
                executor.validate({})
        assert len(calls) == 1

    @pytest.mark.parametrize("where", ["factory", "validate"])
    def test_nor_do_those_that_have_it_made_anew_each_time(self, offering: Any, where: str) -> None:
        """A server has, for each request: each that hangs would keep a thread."""
        calls: list[int] = []

        def hangs(*_: object) -> Any:
            calls.append(1)
            return sleeps()

        factory = hangs if where == "factory" else an_executor(validate=hangs)
        plugins = offering(sked_executors={"other": factory})
        for _ in range(5):
            with pytest.raises(PluginError, match=r"did not come back within 1 s: it is left alone for 60 s"):
                spec_checkers(plugins)["other"].validate({})
        assert len(calls) == 1

    @pytest.mark.parametrize("wrong", [*FAILS, "sleeps", "spins"])
    def test_schedulers_take_its_ports_for_unknown_and_those_of_others_for_known(
        self, offering: Any, caplog: Any, wrong: str
    ) -> None:
        ports_of = ContainerPorts(checkers(offering, an_executor(ports={**FAILS, **HANGS}[wrong])))
        good = a_container(executor={"ports": [8080]})
        assert ports_of(a_definition("a", containers=[a_container(type="other")])) == frozenset()
        assert ports_of(a_definition("b", containers=[good])) == {8080}
        assert f"ports of a can't be told: {NAMED}" in caplog.text


def test_an_executor_whose_attributes_raise_fails_its_own_manifests_only(offering: Any) -> None:
    class Raises(FakeExecutor):
        @property
        def policy_type(self) -> Any:
            raise ValueError("a bug")

    engine = FakeEngine()
    plugins = offering(
        sked_executors={
            "other": lambda context: Raises(engine, context),
            "bash": lambda context: FakeExecutor(engine, context),
        }
    )
    with pytest.raises(PluginError, match="executor other of fakes failed: ValueError: a bug"):
        asked.executor(plugins, "other", NOWHERE)
    checkers = spec_checkers(plugins)
    assert checkers["bash"].validate({}) == []
    with pytest.raises(PluginError, match="executor other of fakes failed: ValueError: a bug"):
        checkers["other"].validate({})


def test_an_executor_that_can_not_be_closed_ends_no_agent(offering: Any, caplog: pytest.LogCaptureFixture) -> None:
    plugins = offering(sked_executors={"other": lambda context: SimpleNamespace()})
    asked.executor(plugins, "other", NOWHERE).close()
    assert "executor other of fakes failed: AttributeError" in caplog.text


def test_an_executor_is_told_by_what_it_has(offering: Any) -> None:
    """As it is by those that ask whether it can follow logs, run commands, or has a section in the policy."""
    full = {"logs": gives([]), "kept": gives([]), "exec": gives(None), "denials": gives([]), "policy_type": dict}
    more, less = an_executor(**full), an_executor()  # type: ignore[arg-type]
    plugins = offering(sked_executors={"more": more, "less": less})
    for kind in (LogSource, CommandRunner, Policed):
        assert isinstance(asked.executor(plugins, "more", NOWHERE), kind)
        assert not isinstance(asked.executor(plugins, "less", NOWHERE), kind)
    assert not hasattr(asked.executor(plugins, "less", NOWHERE), "attributes")


def with_other(solo: Solo, offering: Any, factory: Any) -> None:
    """The next agent has an executor ``other`` as well."""

    def both(**offers: Any) -> Plugins:
        plugins: Plugins = offering(sked_executors={**offers["sked_executors"], "other": factory})
        return plugins

    solo.offering, solo.settings = both, {"policy": an_open_policy("bash", "other")}
    solo.crash()


GOOD = a_task(HOST, 0)
BAD = a_task(HOST, 0, a_definition("bad", containers=[a_container(type="other", executor={"deep": {"list": [1]}})]))
BAD = a_task(HOST, 0, BAD.task_definition, service="bad")


class TestExecutorsOfAgents:
    @pytest.mark.parametrize("method", ["validate", "ports", "denials"])
    @pytest.mark.parametrize("wrong", [*FAILS, "sleeps", "spins"])
    def test_one_that_fails_or_hangs_when_it_judges_keeps_no_other_from_running(
        self, solo: Solo, offering: Any, method: str, wrong: str
    ) -> None:
        more = {"policy_type": dict} if method == "denials" else {}
        with_other(solo, offering, an_executor(**{method: {**FAILS, **HANGS}[wrong], **more}))
        solo.issue(BAD, GOOD)
        solo.pass_time(5)
        assert solo.engine.running() == [GOOD.id]
        assert any(NAMED in event.why for event in solo.events if event.subject == f"task/{BAD.id}")

    @pytest.mark.parametrize("method", ["start", "inspect", "recover", "watch", "attributes"])
    @pytest.mark.parametrize("wrong", ["raises", "exits", "nothing"])
    def test_one_that_fails_at_work_keeps_no_other_from_running(
        self, solo: Solo, offering: Any, method: str, wrong: str
    ) -> None:
        with_other(solo, offering, an_executor(**{method: FAILS[wrong]}))
        solo.issue(BAD, GOOD)
        solo.pass_time(5)
        assert solo.engine.running() == [GOOD.id]
        solo.engine.kill(GOOD.id)
        solo.pass_time(20)
        assert solo.engine.running() == [GOOD.id]
        solo.withdraw(GOOD)
        solo.pass_time(5)
        assert solo.engine.running() == []

    @pytest.mark.parametrize("method", ["start", "stop", "inspect", "recover", "tail"])
    def test_what_looks_like_ctrl_c_in_a_thread_is_a_failure_like_any_other(self, offering: Any, method: str) -> None:
        factory = an_executor(**{method: FAILS["interrupts"]})
        executor = asked.executor(offering(sked_executors={"other": factory}), "other", NOWHERE)
        arguments = {"start": (BAD, BAD.task_definition.containers[0], {}), "stop": (None, 1.0), "inspect": ([],)}
        failures: list[BaseException] = []

        def call() -> None:
            try:
                getattr(executor, method)(*arguments.get(method, ()))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert [str(one) for one in failures] == [f"{NAMED}failed: KeyboardInterrupt"]

    @pytest.mark.parametrize("wrong", [sleeps, spins, gives({1: 2}), gives(7)])
    def test_one_whose_attributes_hang_or_are_none_leaves_its_host_with_all_others(
        self, solo: Solo, offering: Any, wrong: Any
    ) -> None:
        with_other(solo, offering, an_executor(attributes=wrong))
        solo.pass_time(5)
        host = solo.raw(keys.host(HOST))
        assert host is not None
        assert host["attributes"]["arch"] == "x86_64"
        assert sorted(host["executors"]) == ["bash", "other"]

    def test_what_it_does_to_what_it_starts_is_done_to_a_copy(self, solo: Solo, offering: Any) -> None:
        with_other(solo, offering, an_executor(start=spoils))
        solo.issue(BAD)
        solo.pass_time(5)
        slot = solo.agent._tasks.slots[BAD.id]
        assert slot.record is not None
        assert slot.record.task == BAD

    def test_one_that_keeps_no_digest_starts_what_it_is_told_once(self, solo: Solo, offering: Any) -> None:
        starts: list[str] = []

        def start(executor: Any, task: Any, container: Any, env: Any) -> Handle:
            starts.append(task.id)
            handle = FakeExecutor.start(executor, task, container, env)
            kept = executor._engine.containers[handle.ref]
            kept.handle = replace(handle, digest="")
            return kept.handle

        with_other(solo, offering, an_executor(start=start))
        solo.issue(BAD)
        solo.pass_time(10)
        assert starts == [BAD.id]
        solo.crash()
        solo.pass_time(10)
        assert starts == [BAD.id], "the next agent knows from its notes what runs"

    def test_one_that_hangs_when_it_is_closed_does_not_keep_the_agent(self, solo: Solo, offering: Any) -> None:
        with_other(solo, offering, an_executor(close=sleeps))
        solo.pass_time(5)


class Provider:
    """A health provider; what it is made with stands in for its methods."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.register = self.deregister = self.close = gives(None)
        self.registered, self.health, self.wait = gives(frozenset()), gives({}), gives(1)
        vars(self).update(methods)


def a_health(offering: Any, **methods: Callable[..., Any]) -> Any:
    plugins = offering(sked_health={"odd": lambda context: Provider(**methods)})
    context = HealthContext(store=None, url="odd:", host=HOST, clock=SystemClock())  # type: ignore[arg-type]
    return asked.health(plugins, "odd", context)


@pytest.mark.parametrize("method", ["register", "deregister", "registered", "health"])
@pytest.mark.parametrize("wrong", ["raises", "exits", "interrupts", "sleeps", "spins"])
def test_a_health_provider_that_fails_or_hangs_says_nothing_and_is_named(
    offering: Any, method: str, wrong: str
) -> None:
    health = a_health(offering, **{method: {**FAILS, **HANGS}[wrong]})
    arguments = {"register": [GOOD], "deregister": [GOOD.id], "registered": [], "health": [[("default", "web")]]}
    with pytest.raises(Unavailable, match=r"^health provider odd of fakes "):
        getattr(health, method)(*arguments[method])


@pytest.mark.parametrize("answer", [None, 7, {"a": None}, {"a": True}, {7: None}, ["a"], {"a": SimpleNamespace()}])
def test_health_that_is_none_is_unknown(offering: Any, answer: Any) -> None:
    with pytest.raises(Unavailable, match=r"^health provider odd of fakes "):
        a_health(offering, health=gives(answer)).health([("default", "web")])
    with pytest.raises(Unavailable, match=r"^health provider odd of fakes "):
        a_health(offering, registered=gives([answer] if isinstance(answer, int) else answer and [7])).registered()


def test_an_agent_goes_on_while_its_health_provider_answers_nonsense(
    solo: Solo, offering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = a_health(offering, health=gives(None), registered=gives([7]), register=raises(KeyError("x")))
    solo.health = odd
    solo.crash()
    solo.issue(GOOD)
    solo.pass_time(10)
    assert solo.engine.running() == [GOOD.id]
    solo.engine.kill(GOOD.id)
    solo.pass_time(20)
    assert solo.engine.running() == [GOOD.id]


@pytest.mark.parametrize("wrong", ["raises", "exits", "interrupts", "sleeps", "spins"])
def test_a_secrets_provider_that_fails_or_hangs_is_unavailable_and_what_it_says_is_not_told(
    offering: Any, wrong: str
) -> None:
    provider = SimpleNamespace(read={**FAILS, **HANGS}[wrong], problems=gives([]), close=gives(None))
    plugins = offering(sked_secrets={"odd": lambda context: provider})
    with pytest.raises(Unavailable, match=r"^provider odd of fakes ") as told:
        asked.secrets(plugins, "odd", SecretContext(HOST, {})).read("a", "")
    assert "a bug" not in str(told.value)


def test_a_secrets_provider_that_is_right_is_asked_as_before(offering: Any) -> None:
    provider = SimpleNamespace(read=lambda name, key: Secret(f"{name}/{key}"), problems=gives(["x"]), close=gives(None))
    found = asked.secrets(offering(sked_secrets={"odd": lambda _: provider}), "odd", SecretContext(HOST, {}))
    assert found.read("a", "b").value == "a/b"
    assert found.problems() == ["x"]
    found.close()


def _asked_in_a_child() -> int:
    return aside.aside("it", lambda: 2, 30.0)


def test_a_process_that_is_forked_asks_by_threads_of_its_own() -> None:
    assert aside.aside("it", lambda: 1) == 1, "and a thread is kept for the next call"
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(_asked_in_a_child).result(60) == 2
