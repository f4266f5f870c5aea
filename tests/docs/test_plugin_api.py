"""docs/plugin-api.txt is what plugins may use, and what the rules say of changes to it is said of changes to it."""

from __future__ import annotations

import re

import pytest

from rigs.plugin_surface import RECORD, RULES, Surface, complaints, current, differences, recorded, written
from sked_core import plugin

HOOK = "hook sked_event: hook\nhook sked_event(event): Event\n"
BEFORE = f"""\
plugin API: 1.4
released: 1.4
Lease: protocol
Lease.renew: method
Lease.renew(ttl): float
Problem: dataclass
Problem.path: str
Problem.line: int = 0
Task: struct
Task.host: named str = ''
scored: function -> Scheduler
scored(score): Score
scored(scope): named str = 'all'
Old: function (deprecated: use scored; gone in 2.0)
Old(what): str
kept: function
{HOOK}"""


def of(text: str) -> Surface:
    return recorded(text)


def test_what_plugins_may_use_is_what_is_recorded() -> None:
    before = recorded(RECORD.read_text())
    now = current(before.released)
    told = complaints(before, now) or differences(before, now)
    assert RECORD.read_text() == written(now), "\n".join(["docs/plugin-api.txt says otherwise:", *told, RULES])


def test_the_record_holds_what_plugins_are_made_of() -> None:
    lines = recorded(RECORD.read_text()).lines
    assert lines["Candidate.exclusive"] == "bool = False"
    assert lines["scored(batch)"].startswith("named ")
    assert lines["Executor.stop(grace)"] == "float"
    assert lines["Task.reject_reason"] == "named str = ''"
    assert lines["Rejected.__init__(hint)"] == "named str = ''"
    assert lines["hook sked_event(event)"] == "Event"
    assert lines["testing.samples.ExecutorSample.script"].endswith("= None")
    assert lines["testing.clock.FakeClock.advance(seconds)"] == "float"
    assert lines["testing.stores.StoreContract"] == "class"


@pytest.mark.parametrize(
    ("was", "now", "how"),
    [
        ("Task: struct\n", "NEW: int = 7\nTask: struct\n", "  new: NEW"),
        ("Old:", "fresh: function\nfresh(name): str\nOld:", "  new: fresh(name)"),
        ("'all'\n", "'all'\nscored(quick): named bool = False\n", "  new: scored(quick)"),
        ("Task.host", "Task.rack: named str = ''\nTask.host", "  new: Task.rack"),
        ("Problem.line: int = 0\n", "Problem.line: int = 0\nProblem.file: str = ''\n", "  new: Problem.file"),
        (HOOK, HOOK + "hook sked_event(clock): Clock\n", "  new: hook sked_event(clock)"),
        (HOOK, HOOK + "hook sked_tick: hook\n", "  new: hook sked_tick"),
        ("scored(score): Score\n", "scored(score): Score = ...\n", "  changed: scored(score)"),
        (
            "scored: function -> Scheduler\n",
            "scored: function -> Scheduler (deprecated: use x; gone in 2.0)\n",
            "  changed",
        ),
    ],
)
def test_what_is_only_added_needs_a_minor_of_its_own(was: str, now: str, how: str) -> None:
    before, after = of(BEFORE), of(BEFORE.replace(was, now, 1))
    assert any(line.startswith(how) for line in differences(before, after))
    assert complaints(before, after) == differences(before, after)
    assert complaints(before, after._replace(version="1.5")) == []


@pytest.mark.parametrize(
    ("was", "now", "how"),
    [
        ("scored(scope): named str = 'all'\n", "", "! gone: scored(scope)"),
        ("scored(score): Score\n", "scored(score): Score\nscored(more): str\n", "! new: scored(more)"),
        ("scored(score)", "scored(what)", "! gone: scored(score)"),
        ("scored(score): Score\n", "scored(first): int = 0\nscored(score): Score\n", "! other order: scored"),
        ("Problem.path: str\n", "Problem.file: str = ''\nProblem.path: str\n", "! other order: Problem"),
        ("= 'all'", "= 'host'", "! changed: scored(scope)"),
        ("Problem.line", "Problem.file: str\nProblem.line", "! new: Problem.file"),
        ("Task.host", "Task.rack: named str\nTask.host", "! new: Task.rack"),
        ("(ttl): float\n", "(ttl): float\nLease.end: method\n", "! new: Lease.end"),
        ("(ttl): float\n", "(ttl): float\nLease.renew(why): str = ''\n", "! new: Lease.renew(why)"),
        ("hook sked_event(event): Event\n", "", "! gone: hook sked_event(event)"),
        ("Task.host: named str = ''\n", "", "! gone: Task.host"),
        ("Old: function (deprecated: use scored; gone in 2.0)\nOld(what): str\n", "", "! gone: Old: function"),
    ],
)
def test_what_breaks_plugins_needs_another_major(was: str, now: str, how: str) -> None:
    before, after = of(BEFORE), of(BEFORE.replace(was, now, 1))
    for version in ("1.4", "1.5"):
        assert any(line.startswith(how) for line in complaints(before, after._replace(version=version)))
    assert complaints(before, after._replace(version="2.0")) == []
    assert complaints(before._replace(released=""), after) == []


def test_no_name_goes_that_was_not_deprecated_in_a_release() -> None:
    before, after = of(BEFORE), of(BEFORE.replace("kept: function\n", ""))
    assert complaints(before, after._replace(version="2.0")) == ["!! gone: kept: function"]


def test_a_name_that_goes_still_works_and_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = plugin._Deprecated(plugin.scored, "scored", "2.0")
    monkeypatch.setitem(plugin._DEPRECATED, "score_by", entry)
    with pytest.warns(
        DeprecationWarning, match=r"sked_core\.plugin\.score_by is gone in plugin API 2\.0: use scored"
    ) as told:
        from sked_core.plugin import score_by  # type: ignore[attr-defined]
    assert score_by is plugin.scored
    assert told[0].filename == __file__
    assert current().lines["score_by"] == "function -> Scheduler (deprecated: use scored; gone in 2.0)"
    assert current().lines["score_by(score)"] == current().lines["scored(score)"]


def test_a_name_that_never_was_is_missed_as_ever() -> None:
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from sked_core.plugin import nonsense  # type: ignore[attr-defined] # noqa: F401
    assert not hasattr(plugin, "nonsense")


def test_the_page_on_broken_plugins_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", (RECORD.parent / "broken-plugins.md").read_text())
    assert len(named) > 15
    for path, test in named:
        text = (RECORD.parents[1] / path).read_text()
        assert f"def {test}(" in text if test else text, (path, test)
