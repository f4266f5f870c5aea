"""What commands tell of what they change, and how people read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sked_core.client import identity
from sked_core.client.looking import happenings
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Host, Service

Tell = Callable[..., str]


@pytest.fixture
def tell(store) -> Tell:
    """``tell("task.issued", at="10:00:05", **fields)``: keep an event under a key of that time, or ``key``."""
    count = 0

    def put(what: str, *, at: str = "10:00:00", key: str = "", **fields: str) -> str:
        nonlocal count
        count += 1
        event = Event(**{"at": f"2026-01-01T{at}Z", "who": "s1", "what": what, "subject": "task/web-1-0"} | fields)
        full = keys.events(key or f"{at.replace(':', '')}-s1-{count:03d}")
        store.commit([Put(full, encode([event]))])
        return full

    return put


def test_a_reason_of_several_lines_stands_in_one(sked, tell) -> None:
    tell("task.rejected", why="policy a: not that\npolicy b: nor that")
    assert "policy a: not that; policy b: nor that" in sked("events").out


@pytest.fixture
def meanwhile(store, monkeypatch) -> Callable[..., None]:
    """``meanwhile(*steps)``: each time that a command waits for a change, the next of these happens; then Ctrl-C."""
    monkeypatch.setattr(happenings, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(happenings, "RETRY_SECONDS", 0)

    def arrange(*steps: Callable[[], object]) -> None:
        left = list(steps)

        def wait(self, prefix, since, timeout):
            if not left:
                signal.raise_signal(signal.SIGINT)
            left.pop(0)()
            return since

        monkeypatch.setattr(type(store), "wait", wait)

    return arrange


def told(store) -> list[Event]:
    commits = [decode(entry.value, list[Event]) for _, entry in sorted(store.read(keys.EVENTS).entries.items())]
    return [event for events in commits for event in events]


def names(out: str) -> list[str]:
    return [json.loads(line)["what"] for line in out.splitlines()]


# --- what commands tell ------------------------------------------------------------------------------------------


def test_scaling_and_deleting_are_told_with_the_change_itself(sked, store, declare, monkeypatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    declare(Service(name="web", task_name="web", task_version=1, desired=2, min=1, max=9))
    sked("scale", "web", "5")
    sked("scale", "web", "5")
    sked("delete", "service/web", "-y")
    scaled, deleted = told(store)
    assert (scaled.what, scaled.subject, scaled.service) == ("service.scaled", "service/web", "web")
    assert (scaled.before, scaled.after) == ("2", "5")
    assert scaled.who.startswith("alice@")
    assert (deleted.what, deleted.subject) == ("service.deleted", "service/web")
    entries = store.read("").entries
    assert max(entry.revision for entry in entries.values()) == entries[max(store.read(keys.EVENTS).entries)].revision


def test_what_is_refused_is_not_told(sked, store, declare) -> None:
    declare(Service(name="web", task_name="web", task_version=1, desired=2, min=1, max=3))
    assert sked("scale", "web", "9").code == 2
    assert sked("delete", "service/none", "-y").code == 4
    assert sked("delete", "service/web").code == 2
    assert told(store) == []


@pytest.mark.parametrize(
    ("environment", "user"),
    [
        ({"SUDO_USER": "alice", "USER": "root"}, "alice@"),
        ({"SUDO_USER": "", "USER": "bob"}, "bob@"),
        ({"SUDO_USER": "a\x1b[2J\n\udcff", "USER": "bob"}, "a\\x1b[2J\\n\\udcff@"),
    ],
)
def test_who_types_is_named_behind_sudo_too_and_in_printable_words(monkeypatch, environment, user) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert identity.by_whom().startswith(user)


def test_somebody_without_a_name_on_a_machine_without_one_is_still_told(sked, store, declare, monkeypatch) -> None:
    def none(*_: object) -> str:
        raise OSError("no name")

    for name in ("SUDO_USER", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", none)
    monkeypatch.setattr("socket.gethostname", none)
    declare(Host(name="h-1"))
    assert sked("cordon", "h-1").code == 0
    [event] = told(store)
    assert event.who == f"uid-{os.getuid()}@localhost"


# --- what people see ---------------------------------------------------------------------------------------------


def test_the_newest_stands_last_and_nothing_is_cut_on_a_pipe(sked, tell) -> None:
    tell("host.draining", at="10:00:09", subject="host/h-1", host="h-1", before="ready", after="draining", who="me@pc")
    tell("task.issued", at="10:00:02", after="h-1", host="h-1", why="x" * 300)
    ran = sked("events")
    assert (ran.code, ran.err) == (0, "")
    head, rule, first, second = ran.out.splitlines()
    assert head.split() == ["at", "who", "what", "subject", "host", "from", "->", "to", "why"]
    assert set(rule) == {"-"}
    assert first.split()[:3] == ["2026-01-01T10:00:02Z", "s1", "task.issued"]
    assert first.endswith("-> h-1" + " " * (len("ready -> draining") - len("-> h-1") + 5) + "x" * 300)
    assert second.endswith("     me@pc     host.draining     host/h-1         h-1      ready -> draining")
    assert head.index("subject") == first.index("task/web-1-0") == second.index("host/h-1")


def test_no_events_are_an_empty_listing(sked, store) -> None:
    assert len(sked("events").out.splitlines()) == 2
    assert json.loads(sked("events", "-o", "json").out) == {"api": "sked/v1", "kind": "EventList", "items": []}
    assert sked("events", "-o", "jsonl").out == ""


def test_json_holds_the_fields_as_they_are_stored(sked, store) -> None:
    stored = {"at": "2026-01-01T10:00:00Z", "who": "s1", "what": "task.issued", "subject": "task/a", "to": "h", "x": 1}
    store.commit([Put(keys.events("1"), encode([stored, stored | {"x": 2}]))])
    document = json.loads(sked("events", "-o", "json").out)
    assert document == {"api": "sked/v1", "kind": "EventList", "items": [stored, stored | {"x": 2}]}
    assert [json.loads(line) for line in sked("events", "-o", "jsonl").out.splitlines()] == document["items"]


def test_filters_find_what_belongs_to_a_service_host_or_task(sked, tell) -> None:
    tell("a", service="web", host="h-1")
    tell("b", subject="service/web")
    tell("c", subject="host/h-1", at="10:00:01")
    tell("d", subject="task/web-1-1", service="web", host="h-2", at="10:00:02")
    assert names(sked("events", "-o", "jsonl", "--by-service", "web").out) == ["a", "b", "d"]
    assert names(sked("events", "-o", "jsonl", "--by-host", "h-1").out) == ["a", "c"]
    assert names(sked("events", "-o", "jsonl", "--by-task", "web-1-1").out) == ["d"]
    assert names(sked("events", "-o", "jsonl", "--by-host", "h-1", "--by-service", "web").out) == ["a"]
    assert names(sked("events", "-o", "jsonl", "-n", "2").out) == ["c", "d"]
    assert names(sked("events", "-o", "jsonl", "-n", "0").out) == []
    assert names(sked("events", "-o", "jsonl", "-n", "99").out) == ["a", "b", "c", "d"]


def test_where_nothing_is_found_by_a_name_that_does_not_exist_it_is_said(sked, tell, declare) -> None:
    tell("a", service="gone")
    declare(Service(name="web", task_name="web", task_version=1), Host(name="h-1"))
    for options, note in (
        (("--by-service", "wbe"), "sked: no service wbe; did you mean web?\n"),
        (("--by-host", "h-l"), "sked: no host h-l; did you mean h-1?\n"),
        (("--by-task", "web-1-9"), "sked: no task web-1-9; `sked tasks` lists the tasks\n"),
        (("--by-service", "web"), ""),
        (("--by-service", "gone"), ""),
        ((), ""),
    ):
        ran = sked("events", *options, "-o", "jsonl")
        assert (ran.code, ran.err) == (0, note)


def test_since_goes_back_so_long(sked, tell, declare) -> None:
    tell("old")
    declare(Host(name="h-1"))
    sked("cordon", "h-1")
    assert names(sked("events", "-o", "jsonl", "--since", "1h").out) == ["host.cordoned"]


@pytest.mark.parametrize(
    "options", [["-f", "-o", "json"], ["--since", "x"], ["-n", "-1"], ["--by-host", "../x"], ["--by-task", "A/b"]]
)
def test_what_makes_no_sense_is_wrong_usage(sked, store, options) -> None:
    assert sked("events", *options).code == 2


def test_what_is_no_event_is_named_and_left_out(sked, store, tell) -> None:
    tell("a")
    for key, value in (("1", b"{"), ("2", b"{}"), ("3", b'[{"at": 7}]'), ("4", b"[1]"), ("5", b"\xff\x1b[2J")):
        store.commit([Put(keys.events(key), value)])
    ran = sked("events", "-o", "jsonl")
    assert (ran.code, names(ran.out)) == (0, ["a"])
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [f"events/{key} is left out" for key in "12345"]


def test_a_terminal_is_not_driven_by_what_others_wrote(sked, tell) -> None:
    tell("a\x1b[2J", why="two\nlines", who="\u202e")
    lines = sked("events").out.splitlines()
    assert len(lines) == 3
    assert lines[-1].isprintable()


# --- following ---------------------------------------------------------------------------------------------------


def test_follow_shows_the_last_ten_then_each_new_one_once(sked, tell, meanwhile) -> None:
    for number in range(15):
        tell(f"n.{number}", at=f"10:00:{number:02d}")
    meanwhile(lambda: tell("new.1", at="10:01:00"), lambda: None, lambda: tell("new.2", at="10:02:00"))
    ran = sked("events", "-f", "-o", "jsonl")
    assert ran.code == 130
    assert names(ran.out) == [*(f"n.{number}" for number in range(5, 15)), "new.1", "new.2"]


def test_follow_shows_what_comes_with_an_older_time_too(sked, tell, meanwhile) -> None:
    tell("a", at="10:00:30")
    meanwhile(lambda: tell("b", at="10:00:10"), lambda: tell("c", at="09:00:00"), lambda: tell("d", at="10:00:31"))
    assert names(sked("events", "-f", "-o", "jsonl").out) == ["a", "b", "c", "d"]


def test_follow_keeps_to_the_filter_and_survives_what_is_removed_or_invalid(sked, store, tell, meanwhile) -> None:
    first = tell("a", service="web")

    def trimmed() -> None:
        store.commit([Delete(first), Put(keys.events("1"), b"nonsense")])

    meanwhile(trimmed, lambda: tell("b", service="db"), lambda: tell("c", service="web"))
    ran = sked("events", "-f", "-o", "jsonl", "--by-service", "web")
    assert names(ran.out) == ["a", "c"]
    assert ran.err.count("events/1 is left out") == 1


def test_follow_prints_rows_below_one_head(sked, tell, meanwhile) -> None:
    meanwhile(lambda: tell("a" * 60, why="because"), lambda: tell("b", at="10:00:01", why="so"))
    head, _, first, second = sked("events", "-f").out.splitlines()
    assert first.split() == ["2026-01-01T10:00:00Z", "s1", "a" * 60, "task/web-1-0", "because"]
    assert first.index("because") == second.index("so") > head.index("why")


def test_follow_outlasts_an_outage_with_two_notes(sked, store, tell, meanwhile, monkeypatch) -> None:
    kind, failures = type(store), []
    read = kind.read

    def unsteady(self, prefix):
        if failures:
            raise Unavailable(failures.pop())
        return read(self, prefix)

    monkeypatch.setattr(kind, "read", unsteady)

    def outage() -> None:
        tell("b", at="10:00:01")
        failures.extend(["the store is away"] * 3)

    tell("a")
    meanwhile(outage, lambda: None)
    ran = sked("events", "-f", "-o", "jsonl")
    assert (ran.code, names(ran.out)) == (130, ["a", "b"])
    assert ran.err.splitlines()[:2] == ["sked: the store is away; trying again", "sked: the store answers again"]


def test_a_store_that_is_away_from_the_start_is_an_error(sked, monkeypatch) -> None:
    monkeypatch.setenv("SKED_BACKEND", "consul://127.0.0.1:1")
    assert sked("events", "-f").code == 6


def test_a_process_that_follows_prints_at_once_and_ends_on_ctrl_c(store, tell, url) -> None:
    tell("before")
    root = Path(__file__).resolve().parents[2]
    follower = subprocess.Popen(
        [sys.executable, "-m", "sked_core.surface.cli", "--backend", url, "events", "-f", "-o", "jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    with follower:
        assert json.loads(follower.stdout.readline())["what"] == "before"
        tell("after", at="10:00:01")
        assert json.loads(follower.stdout.readline())["what"] == "after"
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=60)
    assert (follower.returncode, err) == (130, "\nsked: interrupted\n")
