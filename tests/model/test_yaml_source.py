"""YAML 1.2 and nothing else of YAML; positions; and bounds on everything that input can blow up."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.model.yaml_source import MAX_BYTES, parse


def data(text):
    source = parse(text.encode(), "f.yml")
    assert source.problems == ()
    (document,) = source.documents
    return document.data


def problems(content):
    return [str(p) for p in parse(content if isinstance(content, bytes) else content.encode(), "f.yml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("Yes", "Yes"),
        ("22:22", "22:22"),
        ("1:20:30", "1:20:30"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("+5", 5),
        ("-3", -3),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nULL", "nULL"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e", "1e"),
        ("=", "="),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = data(f"a: {text}\n")["a"]
    assert (found, type(found)) == (value, type(value))


def test_places_of_keys_and_values_count_from_one():
    source = parse(b"services:\n  - name: web\n    desired:   four\n", "f.yml")
    (document,) = source.documents
    assert document.place("services[0].desired") == (3, 16)
    assert document.place("services[0].desired", key=True) == (3, 5)
    assert document.place("services[0]") == (2, 5)


def test_what_is_missing_has_the_place_of_what_should_hold_it():
    (document,) = parse(b"services:\n  - name: web\n", "f.yml").documents
    assert document.place("services[0].task_name") == (2, 5)
    assert document.place("services[0].checks[3].http") == (2, 5)
    assert document.place("clusters") == (1, 1)


def test_places_count_characters_not_bytes():
    assert problems("é: 1\n'é': 2\n") == ["f.yml:2:1: é: duplicate key, first at line 1, column 1"]
    assert problems("{é: 1, 'é': 2}\n") == ["f.yml:1:8: é: duplicate key, first at line 1, column 2"]


def test_a_duplicate_key_names_both_places_and_its_path():
    assert problems("a:\n  - b: 1\n    b: 2\n") == ["f.yml:3:5: a[0].b: duplicate key, first at line 2, column 5"]


def test_a_duplicate_in_what_is_aliased_is_reported_where_it_stands():
    assert problems("a: &x {b: 1, b: 2}\nc: *x\n")[0] == "f.yml:1:14: a.b: duplicate key, first at line 1, column 8"


def test_several_mistakes_of_one_file_are_all_reported():
    assert problems("a: !!set {x}\nb: .inf\n<<: {c: 1}\n1: one\n") == [
        "f.yml:1:4: a: tag not allowed: !!set",
        "f.yml:2:4: b: not a number that JSON can hold: .inf",
        "f.yml:3:1: merge keys (<<) are not supported: alias a whole value instead",
        'f.yml:4:1: a key must be text, got 1: quote it, "1"',
    ]


def test_merge_keys_are_taken_where_they_are_asked_for():
    text = b"a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*b, {x: 9, z: 4}], y: 5}\n"
    source = parse(text, "f.yml", merge=True)
    assert source.problems == ()
    (document,) = source.documents
    assert document.data["b"] == {"x": 3, "y": 2}
    assert document.data["c"] == {"x": 3, "y": 5, "z": 4}
    assert document.place("c.z", key=True) == (3, 21)


def test_only_mappings_are_merged_and_own_keys_are_still_unique():
    source = parse(b"a: {<<: 3}\nb: {<<: [[x]], x: 1, x: 2}\n", "f.yml", merge=True)
    assert [str(problem) for problem in source.problems] == [
        "f.yml:1:9: a: what is merged must be a mapping, got a scalar",
        "f.yml:2:22: b.x: duplicate key, first at line 2, column 16",
        "f.yml:2:10: b: what is merged must be a mapping, got a list",
    ]


def test_a_quoted_merge_key_is_an_ordinary_key():
    assert data("'<<': 1") == {"<<": 1}


def test_a_surrogate_pair_as_json_writes_it_is_one_character():
    assert data('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert problems('{"a": "\\ude00\\ud83d"}') == ["f.yml:1:7: a: half of a surrogate pair is not text"]


def test_a_surrogate_pair_in_a_key_is_one_character_as_well():
    assert data('{"\\ud83d\\ude00": 1}') == {"\U0001f600": 1}
    assert problems('{"\\ud83d\\ude00": 1, "\U0001f600": 2}') == [
        "f.yml:1:21: \U0001f600: duplicate key, first at line 1, column 2"
    ]


def test_an_alias_of_a_whole_value_is_that_value():
    assert data("a: &x {b: [1, 2]}\nc: *x\nd: [*x]\n") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": [{"b": [1, 2]}]}


def test_an_anchor_may_be_given_anew():
    assert data("a: &x 1\nb: *x\nc: &x 2\nd: *x\n") == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_documents_before_a_syntax_error_are_still_read():
    source = parse(b"a: 1\n---\nb: [\n", "f.yml")
    assert [document.data for document in source.documents] == [{"a": 1}]
    assert len(source.problems) == 1


@pytest.mark.parametrize("text", ["", "\n\n", "---\n", "---\n---\n...\n", "# nothing but this\n", "~\n"])
def test_empty_documents_hold_nothing(text):
    source = parse(text.encode(), "f.yml")
    assert (source.documents, source.problems) == ((), ())


def test_a_file_that_is_too_large_is_refused():
    assert problems(b"a: " + b"x" * MAX_BYTES) == [f"f.yml:1:1: the file is larger than {MAX_BYTES} bytes"]


def test_a_name_of_a_file_can_not_drive_the_terminal():
    (problem,) = parse(b"[", "\x1b[2J\n.yml").problems
    assert problem.file == r"\x1b[2J\n.yml"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(1000)),
        "x: &x [" + "y," * 30_000 + "]\nz: [" + "*x," * 30_000 + "]",
        "x: &x " + "y" * 500_000 + "\nz: [" + "*x," * 100_000 + "]",
        "a: " + "1" * 1_000_000,
        "a: 0x" + "f" * 1_000_000,
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1},*a{i - 1}]\n" for i in range(1, 60)),
    ],
    ids=range(10),
)
def test_input_that_would_blow_up_is_refused_soon(text):
    began = time.monotonic()
    assert len(problems(text)) == 1
    assert time.monotonic() - began < 10


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_nothing_that_is_read_raises(content):
    source = parse(content, "f.yml")
    for problem in source.problems:
        assert str(problem).isprintable()
        assert problem.line >= 1 and problem.column >= 1


@given(st.text(alphabet="ab:-[]{}&*!<>|'\"\n \t#,?x1.~\\u0", max_size=60))
@settings(max_examples=500)
def test_nothing_made_of_the_signs_of_yaml_raises(text):
    for document in parse(text.encode(), "f.yml").documents:
        assert isinstance(document.data, dict)


def test_more_than_one_document_and_json_are_read_alike():
    source = parse(b'{"a": [1, 2.5, true, null, "x"]}\n---\nb: 1\n', "f.yml")
    assert [document.data for document in source.documents] == [{"a": [1, 2.5, True, None, "x"]}, {"b": 1}]
