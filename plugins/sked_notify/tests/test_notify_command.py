"""The file of hooks, and the commands that look at it and try it."""

from __future__ import annotations

import json

import pytest

from sked_core.plugin import EVENT_NAMES
from sked_core.testing.commands import run_command
from sked_notify import plugin

HOOK = '[[hook]]\nname = "ops"\nurl = "https://hooks.example/services/secret-path"\nevents = ["task.*"]\n'


def test_hooks_are_shown_without_what_is_secret(file):
    file.write_text(HOOK + 'services = ["web"]\nheaders = {Authorization = "Bearer secret-token"}\n')
    ran = run_command(plugin, "notify", "show")
    assert ran.out.splitlines() == [
        "ops: json to https://hooks.example/…",
        "  events: task.*",
        "  services: web",
        "  headers: Authorization",
        "  one message in 30s at most",
    ]


def test_a_sample_is_sent_to_each_hook_and_what_came_of_it_is_told(file, taker, another):
    another.answers = [503]
    text = HOOK.replace("https://hooks.example/services/secret-path", taker.url)
    file.write_text(text + text.replace("ops", "chat").replace(taker.url, another.url))
    ran = run_command(plugin, "notify", "test")
    assert ran.code == 1
    first, second = ran.out.splitlines()
    assert first.startswith("ops: took it (200) in ")
    assert second == "chat: answered 503"
    (message,) = taker.wait(1)
    assert message["events"][0]["why"] == "this is a test: nothing has happened"
    assert run_command(plugin, "notify", "test", "--hook", "ops").code == 0
    ran = run_command(plugin, "notify", "test", "--hook", "nope")
    assert (ran.code, "no hook nope" in ran.err) == (4, True)


def test_without_a_file_they_say_where_it_would_be(monkeypatch, tmp_path):
    monkeypatch.delenv("SKED_NOTIFY", raising=False)
    monkeypatch.setattr("sked_notify.config.SYSTEM_FILE", tmp_path / "none.toml")
    monkeypatch.setattr("sked_notify.command.SYSTEM_FILE", tmp_path / "none.toml")
    ran = run_command(plugin, "notify", "show")
    assert (ran.code, f"there is no {tmp_path / 'none.toml'}" in ran.err) == (1, True)
    monkeypatch.setenv("SKED_NOTIFY", str(tmp_path / "gone.toml"))
    assert run_command(plugin, "notify", "show").code == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[hook]]", "[[hooks]]"), 'hooks: unknown field, did you mean "hook"?'),
        (("[[hook]]", "[[hook"), "no TOML"),
        (('["task.*"]', "[]"), "hook[0].events"),
        (('["task.*"]', "5"), "hook[0].events: expected a list"),
        (('"task.*"', '"task.faild"'), 'hook[0].events: no event is called "task.faild", did you mean "task.failed"?'),
        (('"task.*"', '"tasks.*"'), 'hook[0].events: no event is called "tasks.*", did you mean "task.*"?'),
        (('"task.*"', '"*", "qqqq"'), 'no event is called "qqqq", docs/events.md has all that there are'),
        (("https://", "ftp://"), "hook[0].url: expected https://HOST/PATH"),
        (("https://", "https://user:secret-password@"), "hook[0].url: a password in a URL is seen by many"),
        (("https://hooks.example", "http://192.0.2.1"), "hook[0].url: http shows every message on the way"),
        (("name =", "nmae ="), 'hook[0].nmae: unknown field, did you mean "name"?'),
        (("events", 'group = "2 days"\nevents'), "hook[0].group"),
        (("events", 'timeout = "5m"\nevents'), "hook[0].timeout: expected 0.1s to 60s"),
        (("events", 'format = "xml"\nevents'), "hook[0].format"),
        (("events", 'text = "{what.__class__}"\nevents'), "hook[0].text: {what.__class__} is nothing"),
        (("events", 'headers = {"X Y" = "z"}\nevents'), "hook[0].headers"),
        (("events", "headers = {X = {}}\nevents"), "hook[0].headers.X: expected either file or env"),
        (("[[hook]]", HOOK + "[[hook]]"), 'hook: two are called "ops"'),
        (("[[hook]]", "x = " + "[" * 5000), "no TOML"),
        (("[[hook]]", "#" * 300_000), "larger than 262144 bytes"),
    ],
    ids=str,
)
def test_every_mistake_of_the_file_is_named(file, change, message):
    file.write_text(HOOK.replace(*change))
    ran = run_command(plugin, "notify", "show")
    assert ran.code == 3
    assert message in ran.err
    assert "secret" not in ran.err


def test_every_name_of_an_event_and_every_pattern_for_some_is_taken(file):
    patterns = [*EVENT_NAMES, "*", "task.*", "*.applied", "*fail*", "rollout.p?used", "[th]*"]
    file.write_text(HOOK.replace('["task.*"]', json.dumps(patterns)))
    assert run_command(plugin, "notify", "show").code == 0


def test_the_doctor_and_whoever_starts_are_told_of_every_mistake(file):
    """Before there is an event: nobody looks at the log of a scheduler for what is missing in it."""
    file.write_text(HOOK.replace("task.*", "task.faild").replace("name =", "nmae ="))
    assert [line.partition(": ")[0] for line in plugin.sked_problems()] == [str(file)] * 2
    file.write_text(HOOK)
    assert plugin.sked_problems() == []


def test_every_mistake_of_several_hooks_is_named_at_once(file):
    file.write_text(HOOK.replace("name", "nmae") + HOOK.replace('["task.*"]', json.dumps("x")))
    ran = run_command(plugin, "notify", "show")
    assert "hook[0].nmae" in ran.err
    assert "hook[1].events" in ran.err
