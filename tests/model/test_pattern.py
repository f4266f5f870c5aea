"""Regular expressions of manifests: they mean what Python's do, and none of them can hang."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.errors import InvalidValue
from sked_core.model.pattern import MAX_PATTERN, MAX_TEXT, Pattern

CHARACTERS = "ab1-"
ATOMS = st.sampled_from([*"ab1-", ".", "[ab]", "[^a]", "[a-b1]", r"\d", r"\w", r"[\d-]", r"\.", r"\-", r"[^\W1]"])
OFTEN = st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,2}", "{0}"])


def _larger(inner):
    rows = st.lists(inner, min_size=1, max_size=3).map("".join)
    return st.one_of(
        rows,
        st.builds("({}|{})".format, rows, rows),
        st.builds("(?:{}){}".format, rows, OFTEN),
        st.builds("({}|){}".format, rows, OFTEN),
    )


PATTERNS = st.recursive(st.one_of(ATOMS, st.builds("{}{}".format, ATOMS, OFTEN)), _larger, max_leaves=6)


@settings(max_examples=1000, deadline=None)
@given(PATTERNS, st.lists(st.text(CHARACTERS + ".", max_size=6), min_size=1, max_size=8))
def test_a_pattern_means_what_it_means_to_python(pattern, texts):
    ours = Pattern(pattern)
    assert [ours.matches(text) for text in texts] == [bool(re.fullmatch(pattern, text, re.ASCII)) for text in texts]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("r[0-9]+", ["r1", "r20"], ["r", "xr1", "r1x", ""]),
        ("^web-(a|b)$", ["web-a", "web-b"], ["web-c", "^web-a$"]),
        (r"a\$", ["a$"], ["a"]),
        (r"a\\$", ["a\\"], ["a\\$"]),
        ("", [""], ["a"]),
        ("a|", ["a", ""], ["b"]),
        ("(?:ab){2,3}", ["abab", "ababab"], ["ab", "abababab"]),
        (r"[\]\-^]+", ["]-^"], ["a"]),
        (".*", ["", "anything at all", "ä"], ["two\nlines"]),
        (r"\w+", ["abc_1"], ["ä"]),
    ],
)
def test_what_matches(pattern, matching, others):
    compiled = Pattern(pattern)
    assert [text for text in matching if not compiled.matches(text)] == []
    assert [text for text in others if compiled.matches(text)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("r[0-9", "no class of characters"),
        ("(a", 'pattern "(a": "(" without its end'),
        ("a)", 'pattern "a)": ")" without its beginning'),
        ("*a", 'nothing that "*" could repeat'),
        ("a**", 'two repetitions in a row: "**"'),
        ("a{3,1}", "expected a count"),
        ("a{b}", "expected a count"),
        (r"(a)\1", r"is not known here"),
        ("(?=a)b", "(? is not known here"),
        ("(?i)a", "(? is not known here"),
        ("a$b", '"$" is not known here'),
        ("[z-a]", '"z-a" is no range'),
        (r"[a-\d]", "is no range"),
        ("a\\", "is not known here"),
        ("a" * (MAX_PATTERN + 1), f"at most {MAX_PATTERN} characters"),
        ("((a{99}){99}){99}", "too many repetitions"),
        ("(((|){999}){999}){999}", "too many repetitions"),
    ],
)
def test_what_is_wrong_is_said(pattern, why):
    with pytest.raises(InvalidValue, match=re.escape(why.replace("\\", "\\\\") if why.startswith("\\") else why)):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a?){60}a{60}b", "(.*)(.*)(.*)(.*)(.*)b", "((a*)*)*b"])
def test_what_keeps_others_busy_for_ever_is_done_at_once(pattern):
    compiled = Pattern(pattern)
    began = time.process_time()
    assert not compiled.matches("a" * MAX_TEXT)
    assert time.process_time() - began < 2
    assert not compiled.matches("a" * MAX_TEXT + "b")  # longer than anything that is looked at


@settings(max_examples=300, deadline=None)
@given(st.text("ab\\()[]{}|*+?.^$-0,:", max_size=20), st.text("ab", max_size=5))
def test_any_text_is_a_pattern_or_refused_with_a_reason(pattern, text):
    try:
        compiled = Pattern(pattern)
    except InvalidValue as error:
        assert str(error)
        return
    assert compiled.matches(text) == bool(re.fullmatch(pattern, text, re.ASCII))
