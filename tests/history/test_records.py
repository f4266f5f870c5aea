"""What processes wrote down is read back, also after they were killed in the middle of a line, and told as Markdown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from history.checker import RULES, Verdict, Violation
from history.recorder import PREFIX, RecordedStore
from history.records import History, read_commits, revisions
from history.report import as_markdown, put_into
from history.run import Run
from sked_core.errors import Conflict, InvalidValue, Unavailable
from sked_core.interfaces.store import Check, Delete, Fence, Put, Revision
from sked_core.runtime.stores.memory import MemoryStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proof.md"


def test_every_commit_is_recorded_with_its_outcome_in_lines_and_in_the_store(tmp_path: Path) -> None:
    inner = MemoryStore()
    store = RecordedStore(inner, tmp_path, "scheduler-1.1")
    lease = store.grant(60)
    first = store.commit([Check("locks/services/web", Revision(0)), Put("locks/services/web", b"me", lease)])
    with pytest.raises(Conflict):
        store.commit([Check("locks/services/web", Revision(0)), Put("x", b"1")])
    with pytest.raises(InvalidValue):
        store.commit([Put("../x", b"1")])
    last = store.commit([Fence("locks/services/web", lease), Delete("locks/services/web")])
    commits, strays = read_commits(tmp_path, revisions(inner.read(PREFIX).entries))
    assert [(one.number, one.end, one.revision) for one in commits] == [
        (1, "ok", first),
        (2, "conflict", 0),
        (3, "refused", 0),
        (4, "ok", last),
    ]
    assert strays == []
    assert all(one.by_scheduler and one.began <= one.ended for one in commits)
    assert commits[0].checks == {"locks/services/web": 0}
    assert [(put.key, put.lease) for put in commits[0].puts] == [("locks/services/web", lease.id)]
    assert (commits[3].fences, commits[3].deletes) == ({"locks/services/web": lease.id}, ["locks/services/web"])


def test_an_answer_that_is_lost_on_order_is_one_that_was_carried_out(tmp_path: Path) -> None:
    inner = MemoryStore()
    store = RecordedStore(inner, tmp_path, "scheduler-1.1")
    (tmp_path / "scheduler-1.1.forget").touch()
    store.commit([Put("plain", b"1")])  # depends on no lease
    with pytest.raises(Unavailable):
        store.commit([Put("leased", b"1", store.grant(60))])
    assert not (tmp_path / "scheduler-1.1.forget").exists()
    commits, _ = read_commits(tmp_path, revisions(inner.read(PREFIX).entries))
    assert [(one.end, bool(one.revision)) for one in commits] == [("ok", True), ("unknown", True)]


def test_a_line_that_a_kill_cut_off_was_never_sent_and_what_nobody_recorded_is_told(tmp_path: Path) -> None:
    store = RecordedStore(MemoryStore(), tmp_path, "one")
    store.commit([Put("a", b"1")])
    with (tmp_path / "one.jsonl").open("ab") as lines:
        lines.write(b'{"at": 3.0, "n": 2, "ops": [["put", "b", "", "x", null]]}\n{"at": 4.0, "n": 3, "op')
    commits, strays = read_commits(tmp_path, {"one/1": 7, "ghost/1": 9})
    assert [(one.number, one.end, one.revision) for one in commits] == [(1, "ok", 7), (2, "", 0)]
    assert strays == ["ghost/1"]


def a_run(**more) -> Run:
    told = {"backend": "etcd", "version": "etcd 3", "seed": 1, "seconds": 60.0, "schedulers": 4, "settled_after": 3.0}
    found = {"history": History([]), "verdict": Verdict(), "paused_seconds": [1.0, 40.0]}
    return Run(**{**told, **found, "faults": Counter(killed=2), "changes": Counter(), **more})


def test_a_report_shows_what_is_wrong_and_only_then() -> None:
    assert a_run().proven
    assert "**" not in as_markdown(a_run())
    violation = Violation("max", 7, "scheduler-1.1/3", "made 4 tasks")
    for wrong, shown in (
        ({"verdict": Verdict([violation])}, "[max] revision 7, scheduler-1.1/3: made 4 tasks"),
        ({"unsettled": ["locks/services/web is held"]}, "locks/services/web is held"),
        ({"failures": ["OSError: no"]}, "**The run is void**: OSError: no"),
    ):
        assert not a_run(**wrong).proven
        assert shown in as_markdown(a_run(**wrong))


def test_a_section_replaces_the_one_of_its_backend_or_comes_last() -> None:
    page = "# Proof\n\n## Runs\n\n### consul: 1\n\nold\n\n### etcd: 2\n\nkept\n"
    assert put_into(page, "### consul: 3\n\nnew\n") == page.replace("consul: 1\n\nold", "consul: 3\n\nnew")
    assert put_into(page, "### etcd: 4\n") == page.replace("etcd: 2\n\nkept", "etcd: 4")
    assert put_into(page, "### embedded: 5\n") == page + "\n### embedded: 5\n"


@pytest.mark.parametrize("backend", ["embedded", "consul", "etcd"])
def test_the_page_has_a_run_on_each_backend_in_which_every_rule_held(backend: str) -> None:
    _, _, rest = PAGE.read_text().partition(f"\n### {backend}: ")
    section = rest.partition("\n### ")[0]
    assert f"`scripts/history --backend {backend} " in section
    assert "Not settled" not in section
    assert "void" not in section
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert {row[0].removeprefix("| "): row[2].removesuffix(" |") for row in rows} == dict.fromkeys(RULES.values(), "0")
