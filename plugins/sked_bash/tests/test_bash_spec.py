"""What users may write in a bash container, and what they are told when they may not."""

from __future__ import annotations

import pytest

from sked_bash.source import masked
from sked_bash.spec import env_of, environment, parse, problems


@pytest.mark.parametrize(
    "spec",
    [
        {"start": "sleep 1"},
        {"start": "sleep 1", "stop": "true", "env": ["A=no", "B=22:22", "C=", "D=a=b"]},
        {"start": "sleep 1", "stop": None, "env": {"A": "x", "PORT": 80}, "artifact": None, "download_dir": None},
        {"start": "./bin/server", "artifact": "https://example.com/server.tar.gz?v=1", "download_dir": "bin"},
        {"start": "x", "artifact": "http://user:secret@127.0.0.1:8000/x", "download_dir": "./a/b"},
    ],
)
def test_good_specs(spec: dict[str, object]) -> None:
    assert problems(spec) == []
    assert parse(spec).start == spec["start"]


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({}, "start", "required"),
        ({"start": ""}, "start", "shell command"),
        ({"start": "  \n"}, "start", "shell command"),
        ({"start": 5}, "start", "text"),
        ({"start": None}, "start", "text"),
        ({"start": ["a"]}, "start", "text"),
        ({"start": "a\0b"}, "start", "NUL"),
        ({"start": "\ud800"}, "start", "surrogate"),
        ({"start": "x" * 1_000_000}, "start", "longer"),
        ({"start": "x", "stop": "a\0b"}, "stop", "NUL"),
        ({"start": "x", "strat": "y"}, "strat", 'did you mean "start"?'),
        ({"start": "x", "env": ["A"]}, "env[0]", "NAME=value"),
        ({"start": "x", "env": ["A=1", "=x"]}, "env[1]", "not a name"),
        ({"start": "x", "env": ["1A=x"]}, "env[0]", "not a name"),
        ({"start": "x", "env": {"BASH_FUNC_x%%": "() { :; }"}}, "env.BASH_FUNC_x%%", "not a name"),
        ({"start": "x", "env": ["SKED_MARK=x"]}, "env[0]", "set by the agent"),
        ({"start": "x", "env": ["A=b\0c"]}, "env[0]", "NUL"),
        ({"start": "x", "env": ["A=" + "b" * 200_000]}, "env[0]", "longer"),
        ({"start": "x", "env": "A=b"}, "env", "expected"),
        ({"start": "x", "env": [5]}, "env[0]", "text"),
        ({"start": "x", "artifact": "file:///etc/shadow"}, "artifact", "only http:// and https://"),
        ({"start": "x", "artifact": "ftp://h/x"}, "artifact", "only http:// and https://"),
        ({"start": "x", "artifact": "data:text/plain,x"}, "artifact", "only http:// and https://"),
        ({"start": "x", "artifact": "/etc/shadow"}, "artifact", "only http:// and https://"),
        ({"start": "x", "artifact": "http://"}, "artifact", "no host"),
        ({"start": "x", "artifact": "http://h/\r\nX: y"}, "artifact", "printable ASCII"),
        ({"start": "x", "artifact": "http://h/a b"}, "artifact", "printable ASCII"),
        ({"start": "x", "artifact": "http://[::1/x"}, "artifact", "not a URL"),
        ({"start": "x", "artifact": "http://h:99999/x"}, "artifact", "not a URL"),
        ({"start": "x", "artifact": "http://h/x", "download_dir": "/usr/local/bin"}, "download_dir", "own folder"),
        ({"start": "x", "artifact": "http://h/x", "download_dir": "a/../../b"}, "download_dir", "own folder"),
        ({"start": "x", "artifact": "http://h/x", "download_dir": "~/bin"}, "download_dir", "own folder"),
        ({"start": "x", "artifact": "http://h/x", "download_dir": "a\nb"}, "download_dir", "not a path"),
        ({"start": "x", "download_dir": "bin"}, "download_dir", "no artifact"),
    ],
)
def test_bad_specs_name_the_field_and_the_remedy(spec: dict[str, object], path: str, words: str) -> None:
    found = problems(spec)
    assert [problem.path for problem in found] == [path]
    assert words in found[0].message


def test_every_mistake_is_reported() -> None:
    spec = {"strat": "x", "env": ["A"], "artifact": "file:///x", "download_dir": "/x", "stop": 1}
    assert {problem.path for problem in problems(spec)} == {
        "strat",
        "start",
        "stop",
        "env[0]",
        "artifact",
        "download_dir",
    }


def test_both_forms_of_env_mean_the_same() -> None:
    assert env_of(parse({"start": "x", "env": ["A=1", "B=x=y"]})) == env_of(
        parse({"start": "x", "env": {"A": 1, "B": "x=y"}})
    )


def test_the_environment_is_small_and_the_mark_is_not_overridden() -> None:
    own = {"HOME": "/root", "CONSUL_HTTP_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "LD_PRELOAD": "x"}
    spec = parse({"start": "x", "env": {"PORT": 80}})
    env = environment(own, {}, {"PORT": "20000", "SKED_HOST": "h"}, spec, "mark")
    assert env == {
        "PATH": env["PATH"],
        "HOME": "/root",
        "PORT": "80",
        "SKED_HOST": "h",
        "SKED_MARK": "mark",
    }
    assert "/bin" in env["PATH"].split(":")


def test_urls_in_messages_show_no_secrets() -> None:
    assert masked("https://user:secret@host:81/a/b?token=secret#secret") == "https://host:81/a/b"
