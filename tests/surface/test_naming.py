"""Names as people type them: the beginning will do where one looks, and never where something is destroyed."""

from __future__ import annotations

import pytest

from sked_core.client.afar.logs import target
from sked_core.client.naming import one_of
from sked_core.errors import NotFound
from sked_core.model.types import Host, Service

NAMES = ["web", "web-2", "worker", "db-10", "db-2"]


@pytest.mark.parametrize(("typed", "found"), [("web", "web"), ("web-", "web-2"), ("wo", "worker"), ("db-2", "db-2")])
def test_a_whole_name_wins_and_else_the_only_one_that_begins_so(typed, found) -> None:
    assert one_of("service", typed, NAMES) == found


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("w", "w is the beginning of 3 names", "it could be web, web-2, worker"),
        ("db", "db is the beginning of 2 names", "it could be db-2, db-10"),
        ("wrker", "no service wrker", "did you mean worker?"),
        ("zzz", "no service zzz", "`sked services` lists the services"),
        ("", "no service ", "`sked services` lists the services"),
    ],
)
def test_what_is_not_unique_or_unknown_is_told_with_what_it_may_be(typed, message, hint) -> None:
    with pytest.raises(NotFound) as raised:
        one_of("service", typed, NAMES)
    assert (str(raised.value), raised.value.hint) == (message, hint)


def test_looking_takes_beginnings_and_destroying_does_not(sked, store, declare, issue, task, attended) -> None:
    declare(Service(name="web", task_name="web", task_version=4), Service(name="api", task_name="api", task_version=1))
    declare(Host(name="host-1"), Host(name="host-2"))
    issue(task(service="web"), task(service="web", instance=1))
    for command in (("explain", "we"), ("describe", "we"), ("rollout", "status", "we"), ("describe", "host/host-1")):
        assert sked(*command).code == 0, command
    assert sked("describe", "default-web-4-1").out.startswith("task default-web-4-1\n")
    issue(task(service="api", version=12))
    assert sked("why", "default-api").out.startswith("default-api-12-0 ")
    for command in (
        ("describe", "default-web"),
        ("logs", "default-web"),
        ("describe", "host/host"),
        ("explain", "default-web-4"),
    ):
        ran = sked(*command)
        assert ran.code == 4, command
        assert "it could be" in ran.err, command
    for command in (
        ("delete", "service/we", "-y"),
        ("stop", "default-web-4", "-y"),
        ("drain", "host"),
        ("scale", "we", "3"),
        ("rollout", "undo", "we"),
        ("cordon", "host"),
    ):
        ran = sked(*command)
        assert ran.code == 4, (command, ran)
    assert "did you mean" in sked("drain", "host-3").err
    assert "did you mean" in sked("stop", "default-web-4-3", "-y").err
    assert "did you mean" in sked("describe", "wbe").err


def test_what_the_store_holds_can_not_drive_the_terminal_of_who_describes_it(sked, declare) -> None:
    declare(Host(name="h-1", address="\x1b[31mred\r\nx: y", tags={"\x07bell": "\u202e"}))
    ran = sked("describe", "host/h-1")
    assert not set("\x1b\r\x07\u202e") & set(ran.out)


def test_logs_take_beginnings_too_and_commands_in_tasks_do_not(sked, store, declare, issue, task) -> None:
    declare(Service(name="web", task_name="web", task_version=4))
    issue(task(service="web"))
    aim = target(store, "we", part=True)
    assert (aim.service, [one.id for one in aim.tasks]) == ("web", ["default-web-4-0"])
    assert target(store, "default-w", part=True).tasks == aim.tasks
    ran = sked("exec", "default-w", "--", "true")
    assert ran.code == 4 and "did you mean" in ran.err


def test_who_restarts_what_is_not_there_is_led_to_lists_that_exist(sked, declare) -> None:
    declare(Service(name="web", task_name="web", task_version=4))
    ran = sked("restart", "zzzz")
    assert (ran.code, "`sked services` and `sked tasks` list what there is" in ran.err) == (4, True)
