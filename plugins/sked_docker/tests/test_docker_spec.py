"""What validate takes and refuses, with the field that it names. No engine."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.plugin import Binding, InvalidValue
from sked_docker.spec import Spec, host_bindings, parse, validate

SHA256 = "sha256:" + "a" * 64

REFUSED = [
    ({}, "image", "missing"),
    ({"image": ""}, "image", "got nothing"),
    ({"image": " "}, "image", "got nothing"),
    ({"image": None}, "image", "text"),
    ({"image": 5}, "image", "text"),
    ({"image": "--privileged"}, "image", "is an option, not an image"),
    ({"image": "-v"}, "image", "is an option"),
    ({"image": "a b"}, "image", "expected an image"),
    ({"image": "hello\n"}, "image", "expected an image"),
    ({"image": "hello;id"}, "image", "expected an image"),
    ({"image": "Hello"}, "image", "expected an image"),
    ({"image": "hello:$PROVIDED_PORT"}, "image", "expected an image"),
    ({"image": ":latest"}, "image", "expected an image"),
    ({"image": "hello:"}, "image", "expected an image"),
    ({"image": "hello@sha256:bad"}, "image", "expected an image"),
    ({"image": "../hello"}, "image", "expected an image"),
    ({"image": "a" * 10_000}, "image", "expected an image"),
    ({"imge": "hello", "image": "hello"}, "imge", 'did you mean "image"'),
    ({"image": "h", "container_port": "http"}, "container_port", "whole number"),
    ({"image": "h", "container_port": 80.5}, "container_port", "whole number"),
    ({"image": "h", "container_port": True}, "container_port", "whole number"),
    ({"image": "h", "container_port": -1}, "container_port", "0"),
    ({"image": "h", "container_port": 65536}, "container_port", "65535"),
    ({"image": "h", "ports": "80:80"}, "ports", "a list"),
    ({"image": "h", "ports": [1342]}, "ports[0]", "in quotes"),
    ({"image": "h", "ports": ["80:80", 22]}, "ports[1]", "in quotes"),
    ({"image": "h", "ports": ["5000"]}, "ports[0]", '"host:container"'),
    ({"image": "h", "ports": ["80:80/icmp"]}, "ports[0]", "tcp, udp or sctp"),
    ({"image": "h", "ports": ["80:80/"]}, "ports[0]", "tcp, udp or sctp"),
    ({"image": "h", "ports": ["1-65535:1-65535"]}, "ports[0]", "range"),
    ({"image": "h", "ports": ["0:80"]}, "ports[0]", "1 to 65535"),
    ({"image": "h", "ports": ["65536:80"]}, "ports[0]", "1 to 65535"),
    ({"image": "h", "ports": ["$PROVIDED_PORT:80"]}, "ports[0]", "1 to 65535"),
    ({"image": "h", "ports": ["host.example:80:80"]}, "ports[0]", "address of an interface"),
    ({"image": "h", "ports": ["1:2:3:4"]}, "ports[0]", "address of an interface"),
    ({"image": "h", "ports": ["80:٨٠"]}, "ports[0]", "1 to 65535"),
    ({"image": "h", "env": ["A"]}, "env[0]", "NAME=value"),
    ({"image": "h", "env": ["=x"]}, "env[0]", "name of a variable"),
    ({"image": "h", "env": ["A B=x"]}, "env[0]", "name of a variable"),
    ({"image": "h", "env": ["OK=1", "SKED_TASK_ID=x"]}, "env[1]", "set by Sked"),
    ({"image": "h", "env": {"PROVIDED_PORT": 1}}, "env.PROVIDED_PORT", "set by Sked"),
    ({"image": "h", "env": {"A": None}}, "env.A", 'write "" for an empty one'),
    ({"image": "h", "env": {"A": ["x"]}}, "env.A", "expected a value"),
    ({"image": "h", "env": ["A=\0"]}, "env[0]", "NUL"),
    ({"image": "h", "env": ["A=" + "x" * 1_000_000]}, "env[0]", "longer than"),
    ({"image": "h", "env": "A=1"}, "env", "list"),
    ({"image": "h", "work_dir": "relative"}, "work_dir", "absolute path"),
    ({"image": "h", "work_dir": "/a/../b"}, "work_dir", "absolute path"),
    ({"image": "h", "work_dir": "/proc/self/fd/8"}, "work_dir", "/proc"),
    ({"image": "h", "work_dir": "//proc/self/fd/8"}, "work_dir", "/proc"),
    ({"image": "h", "work_dir": "/./proc/self/fd/8"}, "work_dir", "/proc"),
    ({"image": "h", "volumes": ["a:b:c:d"]}, "volumes[0]", "source:/path"),
    ({"image": "h", "volumes": ["/data"]}, "volumes[0]", "source:/path"),
    ({"image": "h", "volumes": ["./data:/data"]}, "volumes[0]", "absolute path of the host"),
    ({"image": "h", "volumes": ["/data:data"]}, "volumes[0]", "absolute path"),
    ({"image": "h", "volumes": ["/ok/../../etc:/data"]}, "volumes[0]", '".."'),
    ({"image": "h", "volumes": ["/data:/"]}, "volumes[0]", "root"),
    ({"image": "h", "volumes": ["/data:/data:rx"]}, "volumes[0]", "unknown option"),
    ({"image": "h", "volumes": ["/a\n:/data"]}, "volumes[0]", "source:/path"),
    ({"image": "h", "cmd": "echo 'open"}, "cmd", "no closing quotation"),
    ({"image": "h", "cmd": "a\0b"}, "cmd", "NUL"),
    ({"image": "h", "cmd": ["a\0b"]}, "cmd", "NUL"),
    ({"image": "h", "cmd": ["a", None]}, "cmd", "expected words"),
    ({"image": "h", "cmd": ["x" * 3_000_000]}, "cmd", "longer than"),
    ({"image": "h", "cmd": {"a": 1}}, "cmd", "expected"),
    ({"image": "h", "entry": ["a", True]}, "entry", "expected words"),
    ({"image": "h", "name": "-rf"}, "name", "a-z 0-9"),
    ({"image": "h", "name": "a/../b"}, "name", "a-z 0-9"),
    ({"image": "h", "flags": "--read-only"}, "flags", "list"),
    ({"image": "h", "flags": [["--read-only"]]}, "flags[0]", "expected text"),
    ({"image": "h", "flags": ["--read-only", "--no-such-flag"]}, "flags[1]", "unknown option"),
]


@pytest.mark.parametrize(("spec", "path", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_mistake_is_named_with_its_field(spec: dict[str, Any], path: str, words: str) -> None:
    problems = validate(spec)
    assert [problem.path for problem in problems] == [path]
    assert words in problems[0].message
    assert problems[0].message.isprintable()
    assert len(problems[0].message) < 400
    with pytest.raises(InvalidValue):
        parse(spec)
    assert host_bindings(spec, 20_000) == frozenset()


def test_every_mistake_is_reported_at_once() -> None:
    spec = {
        "image": "--x",
        "cmd": "'",
        "container_port": "http",
        "ports": ["1:1", "x", 7],
        "volumes": ["/a:/b", "c"],
        "env": ["A=1", "B", "C"],
        "flags": ["--nope", "--privileged", "--neither"],
        "colour": "red",
    }
    expected = "image cmd container_port ports[1] ports[2] volumes[1] env[1] env[2] flags[0] flags[2] colour"
    assert sorted(problem.path for problem in validate(spec)) == sorted(expected.split())


@pytest.mark.parametrize(
    "image",
    [
        "hello",
        "hello:1",
        "library/hello",
        "registry.test:5000/team/web:v1.2_3",
        "localhost/x",
        "[::1]:5000/x",
        "a__b/c-d.e",
        SHA256,
        f"hello@{SHA256}",
        f"h:1@{SHA256}",
    ],
)
def test_image_references(image: str) -> None:
    assert validate({"image": image}) == []


def test_null_and_empty_fields_mean_not_said() -> None:
    spec = {"image": "h", "cmd": None, "entry": "", "container_port": None, "ports": None, "env": None}
    spec |= {"work_dir": "", "volumes": [], "flags": None, "name": ""}
    assert validate(spec) == []
    parsed = parse(spec)
    assert (parsed.command, parsed.entry_point, parsed.variables, parsed.settings) == ([], [], {}, [])


def test_cmd_as_text_is_split_like_a_shell_would_and_nothing_is_expanded() -> None:
    assert parse({"image": "h", "cmd": "sh -c 'echo $PROVIDED_PORT; id' a\\ b"}).command == [
        "sh",
        "-c",
        "echo $PROVIDED_PORT; id",
        "a b",
    ]
    assert parse({"image": "h", "cmd": ["-p", 80, "a b"]}).command == ["-p", "80", "a b"]


def test_env_as_list_and_as_map() -> None:
    assert parse({"image": "h", "env": ["A=1", "B=x=y", "C="]}).variables == {"A": "1", "B": "x=y", "C": ""}
    as_map = {"A": 1, "B": True, "C": "", "D": 1.5, "PEM": "a\nb"}
    assert parse({"image": "h", "env": as_map}).variables == {"A": "1", "B": "true", "C": "", "D": "1.5", "PEM": "a\nb"}


def test_ports_that_a_container_takes() -> None:
    spec: dict[str, Any] = {"image": "h", "ports": ["5000:5001", "127.0.0.1:53:53/udp", "[::1]:8080:80"]}
    fixed = {Binding(5000), Binding(53, "127.0.0.1", "udp"), Binding(8080, "::1")}
    assert host_bindings(spec, 20_000) == fixed
    assert host_bindings(spec | {"container_port": 80}, 20_000) == fixed | {Binding(20_000)}
    assert host_bindings(spec | {"container_port": 80}, 0) == fixed
    flags = ["-p 7:8", "-p", "9:9/udp", "-p=10.0.0.1:5:5", "--net=host"]
    by_flags = {Binding(7), Binding(9, protocol="udp"), Binding(5, "10.0.0.1"), Binding(20_000)}
    assert host_bindings({"image": "h", "flags": flags}, 20_000) == by_flags
    assert host_bindings({"image": "h"}, 20_000) == frozenset()


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(Spec.__struct_fields__), _anything))
def test_validate_and_parse_agree_on_whatever_is_thrown_at_them(spec: dict[str, Any]) -> None:
    problems = validate(spec)
    if problems:
        with pytest.raises(InvalidValue):
            parse(spec)
    else:
        parsed = parse(spec)
        json.dumps([parsed.command, parsed.entry_point, parsed.variables, [s.value for s in parsed.settings]])
    assert isinstance(host_bindings(spec, 1), frozenset)


def test_validating_loads_no_client_of_the_engine() -> None:
    program = """
import sys, pathlib
from sked_docker.plugin import sked_executors
from sked_core.plugin import ExecutorContext
executor = sked_executors()["docker"](ExecutorContext("h", "", pathlib.Path("/nonexistent")))
assert executor.validate({"image": "hello", "flags": ["--net=host"]}) == []
assert executor.ports({"image": "hello", "container_port": 80, "ports": ["53:53/udp"]}, 1) == {1}
print(sorted({"docker", "requests", "urllib3"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
