"""Pages of the docs, typed word for word on real clusters, print what they show."""

from __future__ import annotations

import re

import pytest

from rigs.pages import ROOT, SESSIONS
from rigs.typist import Command, File, Typist, pattern, squeeze, steps

NEEDS = {"five-hosts": ("splits", "consul_binary")}
"""Fixtures that skip, or fail where they are required, what this machine can't have."""
GIVEN = {"tutorial": ("house",)}
"""Fixtures that its machines are made with."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(SESSIONS))
def test_what_is_typed_prints_what_the_page_shows(name, request) -> None:
    for needed in NEEDS.get(name, ()):
        request.getfixturevalue(needed)
    pages, machines = SESSIONS[name]
    with machines(**{given: request.getfixturevalue(given) for given in GIVEN.get(name, ())}) as typist:
        for page in pages:
            typist.type(ROOT / page)
        assert name != "tutorial" or typist.remains() == []


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("a     b", "a b", True),
        ("web 1 done", "web 2 done", False),
        ("port …", "port 20007", True),
        ("port … is free", "port 20007 is taken", False),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nb\nc", False),
        ("revision 12", "revision 345", True),
        ("at 2026-11-29T21:52:47Z", "at 2027-01-01T00:00:00Z", True),
        ("vm.81.5c2 places", "ops-1.4711.93be places", True),
        ("", "a", False),
    ],
)
def test_what_may_differ_and_what_may_not(shown, printed, fits) -> None:
    lines = "".join(squeeze(line) + "\n" for line in printed.splitlines())
    assert bool(pattern(shown.splitlines())[0].fullmatch(lines)) is fits


PAGE = """\
Put this into `hello.yml` (it is short):

```yaml
a: 1
```

```console
$ sked run agent   # leave it running
$ sked tasks |
> wc -l
1
(exit code 4)
web-1$ sleep 5
^C
```

<!-- typed
$ true
-->

```console
^C
```
"""


@pytest.fixture
def typist(tmp_path):
    typist = Typist(tmp_path, {"PATH": "/usr/bin:/bin"})
    yield typist
    typist.end()


def test_a_page_is_read_as_it_is_written(tmp_path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    file, *commands = steps(tmp_path / "page.md")
    assert file == File("", "hello.yml", "a: 1\n")
    found = [
        (each.line, each.where, each.text, each.shown, each.code) for each in commands if isinstance(each, Command)
    ]
    assert found == [
        (8, "", "sked run agent", (), 0),
        (9, "", "sked tasks |\nwc -l", ("1",), 4),
        (13, "web-1", "sleep 5", (), 0),
        (18, "", "true", (), 0),
        (22, "", "", (), 0),
    ]
    assert [(each.leaves, each.interrupted, each.first) for each in commands if isinstance(each, Command)] == [
        (True, False, False),
        (False, False, False),
        (False, True, False),
        (False, False, False),
        (False, False, True),
    ]


def _type(typist, tmp_path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    typist.type(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("$ echo one\ntwo\n", "it printed:\none"),
        ("$ false\n", "it ended with 1 instead of 0"),
        ("$ echo fine\nfine\n(exit code 2)\n", "it ended with 0 instead of 2"),
    ],
)
def test_a_page_that_is_not_true_fails(typist, tmp_path, block, said) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        _type(typist, tmp_path, f"```console\n{block}```\n")


def test_a_terminal_goes_on_and_what_is_left_running_ends_by_ctrl_c(typist, tmp_path) -> None:
    text = """\
```console
$ export NAME=first; cd /
$ sleep 1000 # leave it running
$ echo "$NAME $PWD"
 /home/you
$ export NAME=second
```

```console
^C
$ echo "$NAME $PWD"
first /
```
"""
    _type(typist, tmp_path, text)
    assert typist.remains() == []
