"""What commands say of schedulers of plugins that do wrong: of their decisions, and where a restart asks them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from sked_core.client import session
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.decisions import Decision
from sked_core.model.types import Moves
from sked_core.plugin import hookimpl
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import FakeHealth

WHO = "scheduler wrong of sked-wrong 1.0"
OVER = threading.Event()


class Wrong:
    def __init__(self, place: Callable[[], Any]) -> None:
        self._place = place

    def place(self, *_: object) -> Any:
        return self._place()


def fails() -> Any:
    raise ValueError("a bug")


WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "hangs": (lambda: Wrong(lambda: OVER.wait(60) and []), f"{WHO} did not come back within 1.5 s"),
    "raises": (lambda: Wrong(fails), f"{WHO} failed: ValueError: a bug"),
    "nonsense": (lambda: Wrong(lambda: ["mars"]), f"{WHO} placed a task of web on 'mars', where none fits"),
    "nothing": (lambda: Wrong(lambda: None), f"{WHO} failed: TypeError"),
    "can't be made": (fails, f"{WHO} failed: ValueError: a bug"),
    "is made for ever": (lambda: OVER.wait(60), f"{WHO} did not come back within 1.5 s"),
}


@pytest.fixture(params=WAYS)
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The scheduler ``wrong`` of a plugin, and what is said of it."""
    make, said = WAYS[request.param]

    @hookimpl
    def sked_schedulers() -> Any:
        return {"wrong": make}

    module, dist = (
        SimpleNamespace(sked_schedulers=sked_schedulers),
        SimpleNamespace(metadata={"Name": "sked-wrong", "Version": "1.0"}),
    )
    point: Any = SimpleNamespace(name="wrong", value="wrong", dist=dist, load=lambda: module)
    plugins = Plugins([point])
    monkeypatch.setattr("sked_core.client.session.load_plugins", lambda *_, **more: plugins)
    monkeypatch.setattr("sked_core.runtime.plugins.aside.PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr("sked_core.client.looking.foresight.THOUGHT_SECONDS", 1.5)
    OVER.clear()
    yield said
    OVER.set()


def test_what_was_decided_by_it_is_told_without_it(sked, hosts, declare, schedule, store, told):
    hosts("a", "b")
    declare(a_cluster(), a_service(desired=2), a_definition(memory=150))
    schedule()
    key = keys.decision("web", 1)
    decision = decode(store.read(key).entries[key].value, Decision)
    store.commit([Put(key, encode(replace(decision, scheduler="wrong")))])
    ran = sked("replay", "web")
    assert (ran.code, ran.err) == (1, "") and ran.out.startswith("decision 1 of ") and told in ran.out
    for command in ("explain web --decision 1", "explain default-web-1-0"):
        ran = sked(*command.split())
        assert ran.code == 0 and "default-web-1-0" in ran.out, command
        assert f"the record of decision 1 can't be used: {told}" in ran.err, command
    again = sked("replay", "web", "--decision", "all", "--scheduler", "wrong")
    assert again.code == 1 and told in again.out


def test_what_was_decided_by_one_that_is_not_here_can_not_be_run_again(sked, hosts, declare, schedule, store):
    hosts("a")
    declare(a_cluster(), a_service(desired=1), a_definition())
    schedule()
    key = keys.decision("web", 1)
    decision = decode(store.read(key).entries[key].value, Decision)
    store.commit([Put(key, encode(replace(decision, scheduler="elsewhere")))])
    ran = sked("replay", "web")
    assert ran.code == 1 and 'no scheduler "elsewhere" is installed' in ran.err and "installed: " in ran.err


def test_what_goes_wrong_in_the_process_that_places_as_well_as_here_is_said_once(sked, up, declare, store, told):
    up(h1=1000)
    declare(a_cluster(), a_service(desired=2, scheduler="wrong"), a_definition())
    loop = SchedulerLoop(
        name="s-1", store=store, plugins=session.load_plugins(), health=FakeHealth(), clock=FakeClock()
    )
    loop.start_watching()
    loop.step()
    loop._halt.set()
    ran = sked("explain", "web")
    assert ran.code == 0 and ran.out.count(told) == 1 and f"  blocked: {told}" in ran.out


def test_a_restart_leaves_out_what_it_would_have_to_place_and_restarts_the_rest(sked, up, declare, issue, store, told):
    up(h1=1000, h2=250, h3=1000)
    definition, cluster = a_definition("web", memory=200), a_cluster(services=("web",))
    declare(cluster, definition, a_service("web", desired=2, max=3, min=2, scheduler="wrong"))
    issue(*(a_task(f"h{number + 1}", number, definition, cluster=cluster) for number in range(2)), healthy=True)
    ran = sked("restart", "web")
    assert ran.code == 0, ran.err
    moves = decode(store.read(keys.moves("web")).entries[keys.moves("web")].value, Moves)
    assert [(one.task, one.to) for one in moves.moves] == [("default-web-1-0", "h1")]
    assert "default-web-1-1 is left as it is: h2 can't take another one beside it" in ran.err and told in ran.err
