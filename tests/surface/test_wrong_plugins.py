"""What commands say, and how they end, where a plugin that they ask does wrong."""

from __future__ import annotations

import json
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sked_core.plugin import Event, hookimpl
from sked_core.runtime.plugins import registry as plugins_module
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.fakes import FakeEngine, FakeExecutor


class Wrong(FakeExecutor):
    """Prints whatever it is asked, and does what the test says when it validates."""

    does: Any = staticmethod(lambda: None)

    def validate(self, spec: Any) -> Any:
        print("validates")
        type(self).does()
        return super().validate(spec)

    def ports(self, spec: Any, port: int) -> Any:
        print("tells its ports")
        return super().ports(spec, port)


def a_plugin(name: str, **hooks: Any) -> EntryPoint:
    module = SimpleNamespace(**{hook: hookimpl(function) for hook, function in hooks.items()})
    point: Any = SimpleNamespace(
        name=name, value=name, dist=SimpleNamespace(metadata={"Name": f"sked-{name}", "Version": "1.0"})
    )
    point.load = lambda: module
    return point  # type: ignore[no-any-return]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> type[Wrong]:
    """The executor ``bash`` of the only plugin, which prints at every occasion."""

    class Mine(Wrong):
        pass

    def make(context: Any) -> Wrong:
        print("is made")
        return Mine(FakeEngine(), context)

    def sked_executors() -> Any:
        return {"bash": make}

    def sked_event(event: Event) -> None:
        print("hears")

    found = [a_plugin("loud", sked_executors=sked_executors, sked_event=sked_event)]
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls, _rules=None: cls(found)))
    return Mine


def test_what_a_plugin_prints_gets_into_no_data(sked: Any, url: str, manifest: Path, wrong: type[Wrong]) -> None:
    ran = sked("plan", "-f", str(manifest), "-o", "json")
    assert json.loads(ran.out)["kind"] == "Plan"
    assert {"is made", "validates", "tells its ports"} <= set(ran.err.splitlines())
    ran = sked("apply", "-f", str(manifest))
    assert ran.out == "task_definition/web/1 created\nservice/web created\ncluster/default created\n"
    assert "hears" in ran.err.splitlines()
    print("and from then on everything is as before")


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit("text"), KeyboardInterrupt(), ValueError("a bug")])
def test_one_that_ends_or_fails_is_named_and_nothing_is_written(
    sked: Any, url: str, store: Any, manifest: Path, wrong: type[Wrong], raised: BaseException
) -> None:
    def fail() -> None:
        raise raised

    wrong.does = staticmethod(fail)
    ran = sked("apply", "-f", str(manifest))
    assert ran.code == 1
    said = f"sked: executor bash of sked-loud 1.0 failed: {type(raised).__name__}"
    assert any(line.startswith(said) for line in ran.err.splitlines())
    assert 'asked about containers[0], container "web"' in ran.err
    assert store.read("").entries == {}


def test_events_reach_others_while_one_plugin_hangs_with_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugins_module, "EVENT_SECONDS", 3.0)
    over, hung, heard = threading.Event(), list[str](), list[str]()

    def hang(event: Event) -> None:
        hung.append(event.what)
        over.wait()

    def hear(event: Event) -> None:
        heard.append(event.what)

    plugins = Plugins([a_plugin("first", sked_event=hang), a_plugin("second", sked_event=hear)])
    events = [Event(at="", who="x", what=f"a.{number}", subject="host/h1") for number in range(5)]
    try:
        for event in events:
            plugins.observe(event)
    finally:
        over.set()
    assert heard == [event.what for event in events]
    assert hung == ["a.0"]
    assert "sked_event of plugin sked-first 1.0 did not come back within 3 s: it is left alone" in caplog.text


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_nor_does_one_that_raises_what_ends_others_end_anybody(
    caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    heard: list[str] = []

    def fail(event: Event) -> None:
        raise raised

    def hear(event: Event) -> None:
        heard.append(event.what)

    plugins = Plugins([a_plugin("first", sked_event=fail), a_plugin("second", sked_event=hear)])
    for _ in range(3):
        plugins.observe(Event(at="", who="x", what="a.b", subject="host/h1"))
    assert heard == ["a.b"] * 3
    assert caplog.text.count("sked_event of plugin sked-first 1.0 failed") == 1
