"""Constraints on hosts: how they are written, what they mean, and what is said of those that can't be."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.errors import InvalidValue
from sked_core.model.constraint import compare, contradiction, parse, possible_values, refusals
from sked_core.model.types import Host

HOST = Host(
    name="db-1",
    memory=7900,
    tags={"zone": "a", "rack": "r12", "disk": "ssd", "note": "x, y", "build": "v2.10-rc1"},
    attributes={"kernel": "6.1.0-13-amd64", "arch": "x86_64", "cores": "16"},
)


@pytest.mark.parametrize(
    "text",
    [
        "zone = a", "zone=a", "  zone   =   a ", "zone != b", "zone in a, b", "zone in a,b", "zone not in b, c",
        "zone exists", "gpu not exists", "gpu != yes", "gpu not in yes, maybe", "rack matches r[0-9]+",
        "rack matches ^r1.$", "host.kernel version >= 5.10", "host.kernel >= 5.10", "host.kernel version < 6.2",
        "host.kernel version = 6.1", "build > 2.9", "build version = 2.10", "host.cores >= 4", "host.cores > 4",
        "host.memory >= 4096", "host.name = db-1", "host.arch in x86_64, aarch64", 'note = "x, y"', "note in 'x, y', z",
        "host.kernel exists", "host.name matches (db|web)-[0-9]+",
    ],
)  # fmt: skip
def test_a_host_that_is_as_the_constraint_asks(text):
    assert parse(text).holds(HOST)
    assert refusals([text], HOST) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("zone = b", "needs zone = b; has zone a"),
        ("zone != a", "needs zone != a; has zone a"),
        ("zone  in  b,c", "needs zone in b,c; has zone a"),
        ("zone not in a, b", "needs zone not in a, b; has zone a"),
        ("gpu exists", "needs gpu exists; has no gpu"),
        ("zone not exists", "needs zone not exists; has zone a"),
        ("gpu = yes", "needs gpu = yes; has no gpu"),
        ("gpu in yes, no", "needs gpu in yes, no; has no gpu"),
        ("gpu matches .*", "needs gpu matches .*; has no gpu"),
        ("gpu >= 1", "needs gpu >= 1; has no gpu"),
        ("rack matches r1", "needs rack matches r1; has rack r12"),
        ("host.kernel version >= 6.1.1", "needs host.kernel version >= 6.1.1; has host.kernel 6.1.0-13-amd64"),
        ("host.cores >= 32", "needs host.cores >= 32; has host.cores 16"),
        ("zone > 1", "needs zone > 1; has zone a"),
        ("ZONE = a", "needs ZONE = a; has no ZONE"),
        ("zone = A", "needs zone = A; has zone a"),
        ("host.zone = a", "needs host.zone = a; has no host.zone"),
    ],
)
def test_a_host_that_is_not_and_what_it_has_instead(text, why):
    assert not parse(text).holds(HOST)
    assert refusals(["disk = ssd", text], HOST) == [why]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("zone == a", 'unknown operator "==", did you mean "="?'),
        ("zone is a", 'unknown operator "is", did you mean "="?'),
        ("zone IN a, b", 'unknown operator "IN", did you mean "in"?'),
        ("zone =~ a.*", 'unknown operator "=~", did you mean "matches"?'),
        ("zone match a.*", 'unknown operator "match", did you mean "matches"?'),
        ("zone not exist", 'unknown operator "not exist", did you mean "not exists"?'),
        ("zone <> a", 'unknown operator "<>", did you mean "!="?'),
        (
            "zone frobs a",
            'unknown operator "frobs"; known are =, !=, in, not in, matches, exists, not exists, version =, >=, >, <=',
        ),
        ("kernel version 5.10", 'unknown operator "version", did you mean "version ="?'),
        ("zone", 'such as zone = a, got "zone"; in a [list] a constraint with a comma stands in quotes'),
        ("", 'such as zone = a, got ""'),
        ("= a", 'such as zone = a, got "= a"'),
        ("zone =", 'nothing stands behind "=" in "zone ="'),
        ("zone in", 'nothing stands behind "in"'),
        ("zone matches", 'nothing stands behind "matches"'),
        ("zone = a, b", '"=" takes one value, got 2; write "zone in a, b"'),
        ("zone != a, b", '"!=" takes one value, got 2; write "zone not in a, b"'),
        ("zone in [a, b]", "write the values without brackets: zone in a, b"),
        ("zone in a,, b", 'expected values with commas between them, got ", b"'),
        ("zone in a,", "a value is missing behind the last comma"),
        ('zone = "a', "expected values with commas between them"),
        ("zone exists a", "nothing may stand behind exists"),
        ("rack matches r[0-9", "no class of characters"),
        ("host.kernel >= new", 'expected a version or a number, such as 5.10, got "new"'),
        ("zone = " + "a" * 1000, "expected a constraint of at most 1000 characters"),
        ("zone in " + ", ".join(map(str, range(101))), "expected at most 100 values, got 101"),
    ],
)
def test_what_is_no_constraint_is_told_with_what_would_be_one(text, why):
    with pytest.raises(InvalidValue, match=re.escape(why)):
        parse(text)


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ("5.10", "5.9", 1), ("5.10", "5.10.0", 0), ("v1", "1", 0), ("20.10.5+dfsg1", "20.10.5", 0),
        ("5.10.0-rc1", "5.10.1", -1), ("16", "4", 1), ("a", "1", None), ("1", "", None),
    ],
)  # fmt: skip
def test_versions_are_compared_number_by_number(one, other, outcome):
    assert compare(one, other) == outcome
    assert compare(other, one) == (None if outcome is None else -outcome)


@pytest.mark.parametrize(
    "texts",
    [
        ["zone = a", "zone = b"],
        ["zone = a", "disk = ssd", "zone != a"],
        ["zone in a, b", "zone not in a, b"],
        ["zone in a, b", "zone in b, c", "zone != b"],
        ["zone matches r[0-9]", "zone = a"],
        ["zone exists", "zone not exists"],
        ["zone not exists", "zone = a"],
        ["host.kernel >= 6", "host.kernel < 6"],
        ["host.kernel >= 6", "host.kernel < 5.10"],
        ["host.cores < 4", "host.cores > 4"],
    ],
)
def test_what_no_host_can_satisfy_is_found_without_knowing_any(texts):
    parsed = [parse(text) for text in texts]
    assert contradiction(parsed[:-1]) is None
    found = contradiction(parsed)
    assert found is not None
    assert found[0] == len(texts) - 1


@pytest.mark.parametrize(
    "texts",
    [
        ["zone in a, b", "zone != a"],
        ["zone not exists", "zone != a"],
        ["host.kernel >= 5", "host.kernel <= 5"],
        ["host.kernel > 5", "host.kernel < 5.1"],
        ["zone = a", "disk = a", "zone exists"],
    ],
)
def test_what_some_host_may_satisfy_is_no_contradiction(texts):
    assert contradiction([parse(text) for text in texts]) is None


VALUES = st.sampled_from(["a", "b", "1", "2.0"])
CONSTRAINTS = st.one_of(
    st.builds("zone {} {}".format, st.sampled_from(["=", "!=", "in", "not in", "matches", "version ="]), VALUES).filter(
        lambda text: "version" not in text or text[-1] not in "ab"
    ),
    st.builds("zone {} {}, {}".format, st.sampled_from(["in", "not in"]), VALUES, VALUES),
    st.builds("zone {} {}".format, st.sampled_from([">=", ">", "<=", "<"]), st.sampled_from(["1", "2"])),
    st.sampled_from(["zone exists", "zone not exists"]),
)


@given(st.lists(CONSTRAINTS, max_size=4), st.one_of(st.none(), VALUES, st.sampled_from(["1.5", "0", "3", "x"])))
def test_no_host_satisfies_what_is_called_a_contradiction(texts, value):
    parsed = [parse(text) for text in texts]
    host = Host(name="h", tags={} if value is None else {"zone": value})
    if all(one.holds(host) for one in parsed):
        assert contradiction(parsed) is None
        listed = possible_values(parsed, "zone")
        assert listed is None or value in listed
    assert refusals(texts, host) == [why for one in parsed if (why := one.refusal(host))]
