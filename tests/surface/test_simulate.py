"""``sked simulate``: what would become of everything, on a copy that nothing of is written back."""

from __future__ import annotations

import json

import pytest

from sked_core.interfaces.store import Delete
from sked_core.logic.apply import plan_apply
from sked_core.logic.review import declared
from sked_core.model import keys
from sked_core.model.types import Placement
from sked_core.testing.builders import a_cluster, a_definition, a_service


def moved(out: str) -> list[list[str]]:
    """The table of what moves: task, then the hosts."""
    rows = (line.split() for line in out.splitlines() if line.startswith("of-"))
    return [row[:3] for row in rows if not row[0].endswith(":")]


def hosts(out: str) -> dict[str, str]:
    """The table of hosts: what stands behind the name."""
    lines = out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("host "))
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines[begin + 2 :]}


@pytest.fixture
def busy(up, running):
    """Three hosts; two tasks of web on h1 and h2, one of api on h1."""
    up(h1=1000, h2=1000, h3=1000)
    running("web", "h1", "h2", memory=300)
    running("api", "h1", memory=500)


def test_a_lost_host_leaves_its_tasks_to_others_and_nothing_is_written(sked, store, busy) -> None:
    before = dict(store.read("").entries)
    ran = sked("simulate", "--lose", "h1")
    assert ran.code == 0 and dict(store.read("").entries) == before
    assert moved(ran.out) == [["of-api-api-1-0", "h1", "h3"], ["of-web-web-1-0", "h1", "h3"]]
    assert "1 task stay; 0 services as now" in ran.out and "every task has a place" in ran.out
    assert hosts(ran.out) == {
        "h1": "lost 2 -> 0 800 -> 0 of 1000 MB 0 of 4096",
        "h2": "ready 1 300 of 1000 MB 0 of 4096",
        "h3": "ready 0 -> 2 0 -> 800 of 1000 MB 0 of 4096",
    }


def test_what_would_not_fit_is_told_host_by_host(sked, busy) -> None:
    ran = sked("simulate", "--lose", "h1", "--lose", "h2", "--scale", "web=3")
    assert ran.code == 8
    assert "of-web/web: 1 of 3 tasks placed" in ran.out and "; 2 without a place" in ran.out
    assert "  h3: memory: free 200 MB < 300 MB" in ran.out.splitlines()
    assert "  h1, h2: lost: its agent has not been heard of for too long" in ran.out.splitlines()
    assert "2 tasks without a place" in ran.out.splitlines()


def test_options_combine_a_new_host_takes_what_a_drained_one_leaves(sked, busy) -> None:
    ran = sked("simulate", "--drain", "h1", "--drain", "h2", "--add-host", "h9:memory=2g,cpu=4,tag.zone=b,like=h3")
    assert ran.code == 0
    assert hosts(ran.out)["h9"].startswith("new 0 -> ") and "of 2048 MB" in hosts(ran.out)["h9"]
    assert hosts(ran.out)["h1"].startswith("draining 2 -> 0 ")


def test_a_service_is_scaled_as_by_sked_scale(sked, busy) -> None:
    assert "of-api/api: 2 of 2 tasks placed: 1 stay, 1 new" in sked("simulate", "--scale", "api=2").out
    ran = sked("simulate", "--scale", "web=9")
    assert ran.code == 2 and "9 is above the max of 3 that service web was given" in ran.err


def test_another_scheduler_places_what_is_placed_and_afresh_all_of_it(sked, busy) -> None:
    ran = sked("simulate", "--scheduler", "binpack", "--scale", "api=2")
    assert "of-api-api-1-1" in ran.out
    ran = sked("simulate", "--scheduler", "web=binpack", "--scheduler", "api=binpack", "--afresh")
    assert "h3" not in {host for row in moved(ran.out) for host in row[1:]}
    assert "healthy on the way" not in ran.out
    assert hosts(ran.out)["h3"] == "ready 0 0 of 1000 MB 0 of 4096"


def test_a_manifest_is_applied_to_the_copy(sked, store, busy, manifest) -> None:
    text = manifest.read_text().replace("web", "shop").replace("version: 1, cont", "version: 1, memory: 600, cont")
    ran = sked("simulate", "-f", "-", "--lose", "h3", stdin=text)
    assert ran.code == 8 and "default/shop: 1 of 2 tasks placed: 1 new; 1 without a place" in ran.out
    assert keys.service("shop") not in store.read(keys.SERVICES).entries


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--lose", "h11"), 4, "did you mean h1?"),
        (("--drain", "zz"), 4, "`sked hosts` lists the hosts"),
        (("--scale", "wep=2"), 4, "did you mean web?"),
        (("--scheduler", "binpak"), 4, "did you mean binpack?"),
        (("--scheduler", "wep=binpack"), 4, "did you mean web?"),
        (("--scale", "web"), 2, "expected SERVICE=N such as web=5"),
        (("--add-host", "h1"), 2, "there is a host h1 already"),
        (("--add-host", "h9:like=h8"), 4, "no host h8"),
        (("--scheduler", "zz"), 4, "`sked plugins` lists the schedulers"),
        (("--add-host", "h9:size=8"), 2, "size is nothing that a host has"),
        (("--add-host", "h9:memory"), 2, "expected NAME:memory=8g"),
        (("--add-host", "h9:memory=much"), 2, "expected an amount"),
        ((), 2, "what if what?"),
    ],
)
def test_mistakes_are_told_with_what_to_try(sked, busy, arguments, code, said) -> None:
    ran = sked("simulate", *arguments)
    assert ran.code == code and said in ran.err and not ran.out


def test_what_would_happen_anyway_and_what_is_more_than_believed_is_noted(sked, store, busy) -> None:
    store.commit([Delete(keys.live("h2"))])
    ran = sked("simulate", "--lose", "h1", "--lose", "h3")
    assert "note: without any of this 1 service would change too" in ran.err
    assert "note: this shows the loss of 3 hosts; of more than 2 schedulers believe it only after" in ran.err


def test_programs_get_all_of_it(sked, busy) -> None:
    found = json.loads(sked("simulate", "--lose", "h1", "-o", "json").out)
    [item] = found["items"]
    assert (found["kind"], item["unplaced"], item["complete"]) == ("Simulation", 0, True)
    api = next(one for one in item["services"] if one["service"] == "api")
    assert api["moves"] == [
        {"id": "of-api-api-1-0", "host": "h3", "replaces": "of-api-api-1-0", "from": "h1",
         "why": "h1, where of-api-api-1-0 was, is lost"}
    ]  # fmt: skip
    assert item["hosts"][0] == {
        "host": "h1", "state": "lost", "tasks": [2, 0], "memory": [800, 0], "memory_total": 1000,
        "cpu_units": [0, 0], "cpu_units_total": 4096,
    }  # fmt: skip


def test_a_manifest_that_is_applied_to_a_world_is_what_a_store_would_hold() -> None:
    """What plans and simulations start from is what one would read after the apply."""
    from sked_core.logic.world import World, no_ports
    from sked_core.model.manifest import Manifest
    from sked_core.runtime.scheduling.live_world import read_world
    from sked_core.runtime.stores.memory import MemoryStore
    from sked_core.testing.builders import a_cluster, a_definition, a_service

    store = MemoryStore()
    try:
        for version, services in ((1, ("web",)), (2, ("web", "api"))):
            definitions = tuple(a_definition(name, version) for name in services)
            declarations = tuple(a_service(name, version) for name in services)
            manifest = Manifest((a_cluster(services=services),), declarations, definitions)
            live = read_world(store, no_ports)
            changes = plan_apply(manifest, live.config)
            foreseen: World = declared(live.world, changes)
            for change in changes:
                store.commit(change.ops)
            assert read_world(store, no_ports).world == foreseen
    finally:
        store.close()


def test_a_host_like_another_one_has_its_tags_and_those_that_are_given(sked, store, hosts, declare) -> None:
    hosts("h1", memory=100, tags={"zone": "a", "rack": "r1"})
    declare(
        a_cluster(), a_service(desired=1, placement=Placement(require=["zone in a, b", "rack = r1"])), a_definition()
    )
    assert sked("simulate", "--drain", "h1").code == 8
    assert sked("simulate", "--drain", "h1", "--add-host", "h9").code == 8
    assert sked("simulate", "--drain", "h1", "--add-host", "h9:like=h1").code == 0
    assert sked("simulate", "--drain", "h1", "--add-host", "h9:like=h1,tag.zone=b").code == 0
    assert sked("simulate", "--drain", "h1", "--add-host", "h9:like=h1,tag.zone=c").code == 8


def test_a_new_host_that_is_lost_at_once_is_no_new_one(sked, busy) -> None:
    assert hosts(sked("simulate", "--add-host", "h9", "--lose", "h9").out)["h9"].startswith("lost 0 ")


def test_what_only_waits_is_no_change_to_come(sked, hosts, declare, schedule) -> None:
    hosts("h1", memory=100)
    declare(a_cluster(), a_service(desired=2), a_definition(memory=80))
    schedule()
    ran = sked("simulate", "--add-host", "h2:memory=50m")
    assert ran.code == 8 and "without any of this" not in ran.err
