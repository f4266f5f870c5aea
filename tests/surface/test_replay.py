"""``sked replay``: kept decisions, run again."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.decisions import Decision
from sked_core.testing.builders import a_cluster, a_definition, a_service


@pytest.fixture
def decided(hosts, declare, schedule) -> None:
    """Two decisions about web: two tasks, then two more, of which one found no host."""
    hosts("a", "b", memory=300)
    declare(a_cluster(), a_service(desired=2), a_definition(memory=150))
    schedule()
    declare(a_service(desired=5))
    schedule()


def test_the_last_decision_or_all_come_to_the_same(sked, decided) -> None:
    ran = sked("replay", "web")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("decision 2 of ")
    assert ran.out.endswith("(web@1 in default: placed 2, waiting 1): the same, byte for byte\n")
    ran = sked("replay", "web", "--decision", "all")
    assert (ran.code, ran.out.count("byte for byte")) == (0, 2)
    (item,) = json.loads(sked("replay", "web", "--decision", "1", "-o", "json").out)["items"]
    assert (item["same"], item["hosts"], item["hosts_then"]) == (True, ["a", "b"], ["a", "b"])


def test_another_scheduler_is_compared_and_that_is_no_failure(sked, decided) -> None:
    ran = sked("replay", "web", "--decision", "1", "--scheduler", "binpack")
    assert ran.code == 0
    assert "binpack differs: 1 task elsewhere" in ran.out
    assert "  a: 1 then, 2 now\n  b: 1 then, 0 now\n" in ran.out


def test_what_can_t_be_run_again_fails(sked, decided, store) -> None:
    key = keys.decision("web", 2)
    decision = decode(store.read(key).entries[key].value, Decision)
    torn = replace(decision, batches=[replace(decision.batches[0], digest="0" * 64)])
    store.commit([Put(key, encode(torn))])
    ran = sked("replay", "web")
    assert ran.code == 1
    assert "its inputs are not those that its digest stands for" in ran.out
    store.commit([Put(key, b"{}")])
    assert sked("replay", "web", "--decision", "2").code == 4


def test_a_decision_that_comes_to_something_else_is_told_and_fails(sked, decided, store) -> None:
    key = keys.decision("web", 1)
    decision = decode(store.read(key).entries[key].value, Decision)
    store.commit([Put(key, encode(replace(decision, scheduler="binpack")))])  # as if another one had decided it
    ran = sked("replay", "web", "--decision", "1")
    assert (ran.code, "differs: 1 task elsewhere" in ran.out) == (1, True)


def test_of_what_there_is_nothing_it_says_so(sked, decided) -> None:
    assert sked("replay", "nothing").code == 4
    assert sked("replay", "web", "--decision", "7").code == 4
    assert sked("replay", "web", "--decision", "one").code == 2
    for name, hint in (("binpak", "did you mean binpack?"), ("zz", "`sked plugins` lists the schedulers")):
        ran = sked("replay", "web", "--scheduler", name)
        assert (ran.code, ran.err) == (4, f"sked: no scheduler {name}\n  {hint}\n")


def test_a_record_that_holds_nothing_to_run_again_fails(sked, decided, store) -> None:
    key = keys.decision("web", 2)
    decision = decode(store.read(key).entries[key].value, Decision)
    store.commit([Put(key, encode(replace(decision, batches=[])))])
    ran = sked("replay", "web")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith(" holds nothing to run again\n")
