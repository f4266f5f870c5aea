"""check_spec reports every mistake and never raises; durations survive their text."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.errors import InvalidValue
from sked_core.model.duration import MAX_NS, to_nanoseconds, to_seconds, to_text
from sked_core.model.spec import check_spec, plain, without_passwords
from sked_core.model.types import Check, Cluster, Host, Service, Task, TaskDefinition

KINDS = [Check, Cluster, Host, Service, Task, TaskDefinition]
FIELDS = sorted({field.encode_name for kind in KINDS for field in msgspec.structs.fields(kind)})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | SCALARS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.sampled_from(KINDS))
def test_check_spec_never_raises_and_what_it_passes_msgspec_takes(value, kind):
    problems = check_spec(value, kind)
    for problem in problems:
        assert str(problem).isprintable()
    if not problems:
        assert isinstance(msgspec.convert(value, kind), kind)


def test_every_mistake_is_reported_with_what_was_found():
    value = {
        "name": 12, "version": 1.5, "port": 70_000, "tags": ["a", 2, None], "max_attempts": 0, "verison": 1,
        "containers": [{"name": "-a", "type": "x", "setup": "true", "memory": "1g", "checks": [{"interval": []}]}, 3],
    }  # fmt: skip
    assert {str(problem) for problem in check_spec(value, TaskDefinition)} == {
        'verison: unknown field, did you mean "version"?',
        'name: expected text, got 12: quote it, "12"',
        "version: expected a whole number, got 1.5",
        "port: expected a whole number <= 65535, got 70000",
        'tags[1]: expected text, got 2: quote it, "2"',
        "tags[2]: expected text, got nothing",
        "max_attempts: expected a whole number >= 1, got 0",
        'containers[0].name: expected 1 to 63 of a-z 0-9 -, first and last not a hyphen, got "-a"',
        'containers[0].setup: expected a list, got "true"',
        'containers[0].memory: expected a whole number, got "1g"',
        "containers[0].checks[0].interval: expected a whole number or text, got a list",
        "containers[1]: expected a mapping, got 3",
    }


def test_a_field_that_is_required_and_missing_is_named():
    assert [str(problem) for problem in check_spec({}, Cluster)] == ["name: required, but missing"]


def test_a_host_is_held_to_the_rules_of_host_names():
    (problem,) = check_spec({"name": "c", "hosts": ["Web_1.local", ".."]}, Cluster)
    assert str(problem) == 'hosts[1]: expected 1 to 253 of A-Z a-z 0-9 . _ -, not "." or "..", got ".."'


def test_a_field_that_is_near_to_none_gets_the_list_of_them():
    (problem,) = check_spec({"name": "c", "zzz": 1}, Cluster)
    assert problem.message == "unknown field; known are name, datacenter, services, hosts"


@given(st.text())
def test_plain_text_is_one_printable_line(text):
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


@given(st.integers(min_value=0, max_value=MAX_NS))
def test_a_duration_survives_its_text(nanoseconds):
    assert to_nanoseconds(to_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("10s", 10**10), ("1m30s", 9 * 10**10), ("500ms", 5 * 10**8), ("1h", 36 * 10**11), ("1.5s", 15 * 10**8),
     ("0", 0), ("0s", 0), ("1us", 1000), ("1µs", 1000), ("7ns", 7), (90, 90)],
)  # fmt: skip
def test_durations_as_go_writes_them(text, nanoseconds):
    assert to_nanoseconds(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", " ", "10", "10x", "s", "1s ", " 1s", "1 s", "-1s", "+1s", "1s2", "1e3s", "१s", "1h" * 100, "11y", -1,
             "1000000h", True, None, 1.5, [], "1S"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidValue, match="expected a duration"):
        to_nanoseconds(text)


def test_an_empty_duration_means_the_default():
    assert to_seconds("", "5s") == 5.0
    assert to_seconds("250ms", "5s") == 0.25


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:canary@h/x", "https://***@h/x"),
        (
            '{"url":"https://u:canary@h/x","b":"http://v:canary%40@[::1]:8/y"}',
            '{"url":"https://***@h/x","b":"http://***@[::1]:8/y"}',
        ),
        ("https://user:can@ary@h/x", "https://***@h/x"),
        ("postgres://:canary@h/x and redis://u:canary@h", "postgres://***@h/x and redis://***@h"),
        ("https://h:80/a:b@c", "https://h:80/a:b@c"),
        ("https://user@h/x?a=b:c@d", "https://user@h/x?a=b:c@d"),
        ("a:b@c", "a:b@c"),
    ],
)
def test_passwords_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
