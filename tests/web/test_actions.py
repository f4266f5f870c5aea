"""Everything that can be done on the page: it says the command first, and then does what that would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rigs.browser import Fleet, Looker, container, picture


def does(seen: Looker, button: str, command: str, *, fill: dict[str, str] | None = None, confirm: str = "") -> str:
    """Press a button of the page, fill in what is asked for, see the command, and have it done; returns what the page
    says came of it."""
    page = seen.page
    page.locator("main .actions a", has_text=button).first.click()
    box = page.locator("dialog[open]")
    for name, value in (fill or {}).items():
        field = box.locator(f"[name={name}]")
        field.check() if value == "on" else field.fill(value)
    box.locator(".command", has_text=command).wait_for()
    assert box.locator(".command").inner_text().strip() == command
    box.locator("button", has_text=confirm or None).last.click()
    told = page.locator(".note:has(> .command)")  # above it may stand that what was deleted is gone
    told.wait_for()
    assert told.locator(".command").inner_text().strip() == command
    return told.inner_text()


@pytest.fixture
def own(fleet: Fleet) -> Any:
    """``own(name, count)`` declares a service for one test, in a cluster of its own; it goes with the test."""
    made: list[str] = []

    def declare(name: str, count: int = 1, version: int = 1, update: dict[str, Any] | None = None, **more: Any) -> None:
        service = {"name": name, "task_name": name, "task_version": version, "desired": count}
        fleet.rig.apply(
            {
                "clusters": [{"name": name, "services": [name]}],
                "services": [service | ({"update": update} if update else {})],
                "task_definitions": [
                    {"name": name, "version": version, "memory": 50, "containers": container(name), **more}
                ],
            }
        )
        if name not in made:
            made.append(name)
            fleet.rig.until(f"{name} is well", lambda: _well(fleet, name, count))

    yield declare
    for name in made:
        fleet.rig.sked("delete", f"cluster/{name}", "-y")
        fleet.rig.sked("delete", f"service/{name}", "-y")


def _of(fleet: Fleet, service: str) -> list[dict[str, Any]]:
    return [task for task in fleet.rig.items() if task["service"] == service]


def _well(fleet: Fleet, service: str, count: int) -> bool:
    tasks = _of(fleet, service)
    return len(tasks) == count and all(task["healthy"] for task in tasks)


def test_service_is_scaled(look, fleet: Fleet, own: Callable[..., None]) -> None:
    own("scaled", 1)
    seen = look()
    page = seen.go("/services/scaled", live=True)
    page.locator("main .actions a", has_text="Scale").click()
    page.locator("dialog[open] .command").wait_for()
    picture(page, "action")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert "1 → 3" in does(seen, "Scale", "sked scale scaled 3", fill={"count": "3"})
    fleet.rig.until("three", lambda: _well(fleet, "scaled", 3))


def test_service_and_task_are_restarted_and_task_is_stopped(look, fleet: Fleet, own: Callable[..., None]) -> None:
    own("again", 2)
    seen = look()
    seen.go("/services/again", live=True)
    assert "one after another" in does(
        seen, "Restart", "sked restart service/again --why weekly", fill={"why": "weekly"}
    )
    fleet.rig.until("both restarted", lambda: not fleet.rig.items("services") or not _moving(fleet, "again"))
    fleet.rig.until("both well", lambda: _well(fleet, "again", 2))
    task = _of(fleet, "again")[0]["id"]
    seen.go(f"/tasks/{task}", live=True)
    assert "asked to restart" in does(seen, "Restart", f"sked restart task/{task}")
    fleet.rig.until(
        "a restart", lambda: [one for one in fleet.rig.events("task.restarted") if one["subject"] == f"task/{task}"]
    )
    assert "being stopped" in does(seen, "Stop", f"sked stop {task} -y --why 'odd one'", fill={"why": "odd one"})
    fleet.rig.until(
        "the end of it",
        lambda: any(one["what"] == "task.withdrawn" and one["why"] == "odd one" for one in fleet.rig.events()),
    )
    fleet.rig.until("two again", lambda: _well(fleet, "again", 2))


def _moving(fleet: Fleet, service: str) -> bool:
    states = json.loads(fleet.rig.sked("status", "-o", "json"))["items"][0]["services"]
    return any(one["service"] == service and one["state"] == "moving" for one in states)


def test_rollout_is_paused_resumed_promoted_and_undone(look, fleet: Fleet, own: Callable[..., None]) -> None:
    own("canary", 3)
    own("canary", 3, 2, {"canaries": 1, "healthy_for": "1s"})
    seen = look()
    seen.go("/services/canary", live=True)
    seen.sees("h2#rollout", "version 1 → 2")
    assert "paused" in does(seen, "Pause", "sked rollout pause canary --why 'wait a bit'", fill={"why": "wait a bit"})
    assert _rollout(fleet)["state"] == "paused"
    assert "resumed" in does(seen, "Resume", "sked rollout resume canary")
    assert _rollout(fleet)["state"] == "running"
    fleet.rig.until("a canary", lambda: any(task["task_definition"]["version"] == 2 for task in _of(fleet, "canary")))
    assert "promoted" in does(seen, "Promote", "sked rollout promote canary")
    fleet.rig.until("all of version 2", lambda: _all_of(fleet, 2) and _rollout(fleet)["result"] == "succeeded")
    told = does(seen, "Undo", "sked rollout undo canary --to 1 --why worse", fill={"to": "1", "why": "worse"})
    assert "version 2 -> 1" in told
    fleet.rig.until("all of version 1", lambda: _all_of(fleet, 1))


def _rollout(fleet: Fleet) -> dict[str, Any]:
    return json.loads(fleet.rig.sked("rollout", "status", "canary", "-o", "json"))["items"][0]["rollout"]


def _all_of(fleet: Fleet, version: int) -> bool:
    return _well(fleet, "canary", 3) and {task["task_definition"]["version"] for task in _of(fleet, "canary")} == {
        version
    }


def test_host_is_cordoned_drained_and_taken_back(look, fleet: Fleet, own: Callable[..., None]) -> None:
    own("tenant", 5)
    seen = look()
    seen.go("/hosts/web-2", live=True)
    assert "is cordoned" in does(seen, "Cordon", "sked cordon web-2 --why 'new disk'", fill={"why": "new disk"})
    assert _host(fleet, "web-2") == "cordoned"
    assert "is ready" in does(seen, "Uncordon", "sked uncordon web-2")
    assert _host(fleet, "web-2") == "ready"
    told = does(seen, "Drain", "sked drain web-2 --deadline 10m", fill={"deadline": "10m"})
    assert "is draining" in told
    seen.until("document.querySelectorAll('#rows tr').length === 0")
    assert not [task for task in fleet.rig.items() if task["host"] == "web-2"]
    does(seen, "Uncordon", "sked uncordon web-2")


def _host(fleet: Fleet, name: str) -> str:
    return next(host["state"] for host in fleet.rig.items("hosts") if host["name"] == name)


def sends(seen: Looker, button: str, command: str, **fill: str) -> str:
    """The same as ``does``, by plain links and forms: what a browser does by itself."""
    page = seen.page
    page.locator("main .actions a", has_text=button).first.click()
    for name, value in fill.items():
        page.locator(f"main form [name={name}]").fill(value)
    page.locator("main form .actions button").click()
    told = page.locator(".note.ok")
    assert told.locator(".command").inner_text().strip() == command
    return told.inner_text()


def test_hosts_and_rollouts_are_handled_without_javascript(look, fleet: Fleet, own: Callable[..., None]) -> None:
    seen = look(java_script_enabled=False)
    seen.go("/hosts/web-2")
    assert "is cordoned" in sends(seen, "Cordon", "sked cordon web-2 --why 'new disk'", why="new disk")
    assert _host(fleet, "web-2") == "cordoned"
    assert "is ready" in sends(seen, "Uncordon", "sked uncordon web-2")
    assert _host(fleet, "web-2") == "ready"
    own("canary", 3)
    own("canary", 3, 2, {"canaries": 1, "healthy_for": "1s"})
    seen.go("/services/canary")
    assert "paused" in sends(seen, "Pause", "sked rollout pause canary --why 'wait a bit'", why="wait a bit")
    assert _rollout(fleet)["state"] == "paused"
    row = " ".join(seen.go("/services").locator("#service-canary .why").inner_text().split())
    assert " · canary: " in row, "what is said of it, and how far its roll-out is, run together"
    seen.go("/services/canary")
    assert "resumed" in sends(seen, "Resume", "sked rollout resume canary")
    assert _rollout(fleet)["state"] == "running"


def test_tasks_are_rebalanced_and_that_is_given_up(look, fleet: Fleet, own: Callable[..., None]) -> None:
    for host in ("web-1", "web-2", "web-3", "db-1"):
        fleet.rig.sked("cordon", host)
    own("crowd", 4)
    assert {task["host"] for task in _of(fleet, "crowd")} == {"db-2"}
    for host in ("web-1", "web-2", "web-3", "db-1"):
        fleet.rig.sked("uncordon", host)
    seen = look()
    page = seen.go("/", live=True)
    page.locator("main .actions a", has_text="Rebalance").click()
    box = page.locator("dialog[open]")
    assert "db-2 →" in box.inner_text()
    command = box.locator(".command").inner_text().strip()
    assert command.startswith("sked rebalance --apply --if-revision ")
    box.locator("button", has_text="Move them").click()
    page.locator(".note.ok, .note.bad[role=alert]").first.wait_for()
    fleet.rig.until("they are apart", lambda: len({task["host"] for task in _of(fleet, "crowd")}) > 1)
    fleet.rig.until("all is moved", lambda: not _moving(fleet, "crowd"))


def test_manifest_is_planned_and_exactly_that_is_applied(look, fleet: Fleet) -> None:
    seen = look()
    page = seen.go("/plan")
    page.locator("textarea").fill("services:\n  - {name: late, task_name: late, task_version: one}\n")
    page.locator("button", has_text="Plan").click()
    assert "manifest.yml:2" in page.locator("#problems").locator("xpath=..").inner_text()
    text = json.dumps(
        {
            "clusters": [{"name": "late", "services": ["late"]}],
            "services": [{"name": "late", "task_name": "late", "task_version": 1, "desired": 2}],
            "task_definitions": [{"name": "late", "version": 1, "memory": 50, "containers": container("late")}],
        },
        indent=2,
    )
    page.locator("textarea").fill(text)
    page.locator("button", has_text="Plan").click()
    assert "created" in page.locator("#would").locator("xpath=ancestor::section").inner_text()
    assert "2 wanted" in page.locator("#where").locator("xpath=ancestor::section").inner_text()
    picture(page, "plan")
    assert not [one for one in fleet.rig.items("services") if one["name"] == "late"]
    command = page.locator(".command").inner_text().strip()
    assert command.startswith("sked apply -f manifest.yml --if-revision ")
    # What other tests have set going may change what it rests on: then nothing is done, and what would be is shown.
    for _ in range(20):
        page.locator("button", has_text="Apply revision").click()
        page.locator(".note .command").wait_for()
        if page.locator(".note.ok").count():
            break
        assert "is not what would happen now" in page.locator(".note.bad").inner_text()
        assert '"late"' in page.locator("textarea").input_value()
    assert "service/late created" in page.locator(".note.ok").inner_text()
    fleet.rig.until("it runs", lambda: _well(fleet, "late", 2))
    seen.go("/services/late", live=True)
    told = does(seen, "Delete", "sked delete service/late --cascade -y", fill={"cascade": "on"})
    assert "deleted" in told
    fleet.rig.until("it is gone", lambda: not _of(fleet, "late"))


def test_what_is_refused_says_why_and_what_to_try(look, fleet: Fleet) -> None:
    seen = look()
    seen.go("/services/web", live=True)
    told = does(seen, "Delete", "sked delete service/web -y")
    assert "is listed by 1 cluster: default" in told and "--cascade" in told
    assert [one for one in fleet.rig.items("services") if one["name"] == "web"]


def test_actions_work_without_javascript(look, fleet: Fleet, own: Callable[..., None]) -> None:
    own("plain", 1)
    page = look(java_script_enabled=False).go("/services/plain")
    page.locator("main .actions a", has_text="Scale").click()
    page.locator("[name=count]").fill("2")
    page.locator("button", has_text="Scale").click()
    assert "sked scale plain 2" in page.locator(".note.ok").inner_text()
    fleet.rig.until("two", lambda: _well(fleet, "plain", 2))


def test_what_is_typed_in_is_part_of_the_command_that_is_shown(look, fleet: Fleet) -> None:
    page = look().go("/do/drain?host=db-1")
    page.locator("[name=why]").fill("it's hot; rm -rf /")
    page.locator(".command", has_text="""sked drain db-1 --why 'it'"'"'s hot; rm -rf /'""").wait_for()
    page.locator("[name=force]").check()
    page.locator(".command", has_text="sked drain db-1 --force --why").wait_for()
