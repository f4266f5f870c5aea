"""``sked explain``: every host with every reason, what would help, and what was decided before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import AtMost, ClusterStatus, Failure, Mark, Neighbour, Placement, Presence, ServiceStatus
from sked_core.plugin import hookimpl, scored
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.builders import a_cluster, a_container, a_definition, a_service

Schedule = Callable[[], None]
WORKER = a_definition("worker", 7, memory=2048, cpu_units=500)
CACHE = a_definition("cache", 1, memory=2048)


@pytest.fixture
def worker(hosts, declare, schedule, store) -> None:
    """The example of ux.md: three tasks of 2048 MB, of which one finds no host."""
    hosts("web-1", memory=3174)
    hosts("web-2", memory=2100)
    hosts("web-3", memory=400)
    hosts("db-1", alive=False, executors=["docker"])
    store.commit([Put(keys.mark("web-3"), encode(Mark("draining")))])
    declare(a_cluster(services=("worker",)), a_service("worker", 7, desired=3), WORKER)
    schedule()


def test_every_host_is_told_with_every_reason_and_its_numbers(sked, worker) -> None:
    ran = sked("explain", "worker")
    assert ran.code == 0, ran.err
    lines = [line.rstrip() for line in ran.out.splitlines()]
    assert lines[0] == ("worker wants 3 tasks of worker@7 in default: memory 2048 MB, cpu 500, executor bash")
    assert lines[1] == '  placed 2, waiting 1 (scheduler "default")'
    told = {line.split()[0]: line for line in lines[3:7]}
    assert list(told) == ["db-1", "web-1", "web-2", "web-3"]
    assert "its agent is not running; executor bash not available (not installed, or not in its policy)" in told["db-1"]
    assert "has default-worker-7-0; no more" in told["web-1"]
    assert "memory: free 1126 MB < 2048 MB" in told["web-1"]
    assert "give it 922 MB more memory" in told["web-1"]
    assert "has default-worker-7-1; no more" in told["web-2"]
    assert "draining; memory: free 400 MB < 2048 MB" in told["web-3"]
    assert "uncordon it, give it 1648 MB more memory" in told["web-3"]
    assert lines[7] == "  nearest: web-1: give it 922 MB more memory"
    assert lines[8] == "  or: ask for no more than memory 1126 MB: web-1 has that"


def test_json_has_all_of_it(sked, worker) -> None:
    (item,) = json.loads(sked("explain", "worker", "-o", "json").out)["items"]
    assert (item["desired"], item["placed"], item["waiting"]) == (3, 2, 1)
    web_1 = {host["host"]: host for host in item["hosts"]}["web-1"]
    assert (web_1["fits"], web_1["tasks"]) == (False, ["default-worker-7-0"])
    assert web_1["reasons"] == ["memory: free 1126 MB < 2048 MB"]
    assert web_1["ways"][0]["steps"][0]["amount"] == 922
    assert {task["id"]: task["decision"] for task in item["tasks"]} == {
        "default-worker-7-0": 1,
        "default-worker-7-1": 1,
    }


def test_of_a_service_that_runs_it_is_said_where_one_more_would_go(sked, hosts, declare, schedule) -> None:
    hosts("a", "b")
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    out = sked("explain", "web").out
    assert "placed 1, waiting 0" in out
    assert [line.split()[:4] for line in out.splitlines() if line.startswith("  b ")] == [["b", "would", "be", "next"]]
    assert "has default-web-1-0; fits" in out
    assert "default-web-1-0     a        1" in out


def test_a_task_is_explained_by_the_decision_that_placed_it(sked, hosts, declare, schedule) -> None:
    hosts("a")
    hosts("b", memory=50)
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    ran = sked("explain", "default-web-1-0")
    assert ran.out.startswith("default-web-1-0 is on a (not healthy)\n")
    assert "decision 1 about web, by scheduler s0 (default)" in ran.out
    assert "memory: free 50 MB < 100 MB" in ran.out
    (item,) = json.loads(sked("explain", "task/default-web-1-0", "-o", "json").out)["items"]
    assert (item["host"], item["decision"]) == ("a", 1)
    assert [(host["host"], host["fits"]) for host in item["hosts"]] == [("a", True), ("b", False)]


def test_last_week_s_decision_is_told_as_it_was(sked, hosts, declare, schedule) -> None:
    hosts("a", memory=250)
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    declare(a_service(desired=4))
    schedule()
    hosts("a", memory=9000)
    history = sked("explain", "web", "--history").out.splitlines()
    assert [line.split()[0] for line in history[2:]] == ["1", "2"]
    out = sked("explain", "web", "--decision", "2").out
    assert "placed 1, waiting 2" in out
    assert "default-web-1-1 to a" in out
    first = sked("explain", "web", "--decision", "1").out
    assert "default-web-1-0 to a" in first
    (item,) = json.loads(sked("explain", "web", "--decision", "2", "-o", "json").out)["items"]
    assert item["batches"][0]["seen"]["memory"] == 250
    assert sked("explain", "web", "--decision", "3").code == 4


def test_tasks_that_are_to_be_replaced_are_counted_among_the_placed(sked, hosts, declare, schedule, store) -> None:
    hosts("a", memory=250)
    declare(a_cluster(), a_service(desired=2), a_definition(memory=100))
    schedule()
    store.commit([Put(keys.mark("a"), encode(Mark("draining")))])
    assert "placed 2 (2 to be replaced), waiting 0" in sked("explain", "web").out


def test_names_are_told_apart(sked, store, declare, issue, task) -> None:
    declare(a_cluster(services=("web", "default-web-1-0")), a_service(), a_service("default-web-1-0"))
    issue(task(service="web", version=1, host="a"))
    assert "wants" in sked("explain", "default-web-1-0").out
    assert "is on a" in sked("explain", "task/default-web-1-0").out
    ran = sked("explain", "wbe")
    assert (ran.code, "did you mean web?" in ran.err) == (4, True)
    assert sked("explain", "task/web").code == 4
    assert sked("explain", "task/default-web-1-0", "--history").code == 2


def test_a_crash_loop_is_told_in_a_line_by_explain_and_by_services(sked, hosts, declare, schedule, store) -> None:
    hosts("a")
    declare(a_cluster(), a_service(desired=1), a_definition())
    schedule()
    failure = Failure(host="a", attempts=4, reason="exited with code 1", next_try="2026-11-29T16:20:21Z")
    store.commit([Put(keys.failure("default-web-1-0"), encode(failure))])
    assert (
        "default-web-1-0 fails on a: exited with code 1 (4 attempts, next try 2026-11-29T16:20:21Z); "
        "sked tasks --by-service web --why"
    ) in sked("explain", "web").out
    assert "default-web-1-0 fails on a: exited with code 1" in sked("services").out


def test_many_hosts_of_which_the_same_is_to_be_said_share_a_line(sked, hosts, declare, schedule) -> None:
    hosts(*(f"small-{number}" for number in range(60)), memory=10)
    hosts("gone-1", "gone-2", alive=False)
    for number in range(60):
        hosts(f"small-{number}", memory=10 + number % 7)
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    out = sked("explain", "web").out
    assert "small-0, small-1, small-2 and 57 more   no" in out
    assert "memory: free 10 to 16 MB < 100 MB" in out
    assert "gone-1, gone-2" in out
    assert len(out.splitlines()) < 10
    assert len(sked("explain", "web", "--all").out.splitlines()) > 60
    assert len(json.loads(sked("explain", "web", "-o", "json").out)["items"][0]["hosts"]) == 62


def test_without_hosts_or_a_scheduler_or_a_definition_it_says_so(sked, hosts, declare) -> None:
    declare(a_cluster(), a_service(desired=1))
    assert "there is no task definition web/1" in sked("explain", "web").out
    declare(a_definition())
    assert "there is no host" in sked("explain", "web").out
    hosts("a")
    declare(a_service(desired=1, scheduler="tetris"))
    assert "tetris" in sked("explain", "web").out
    declare(a_cluster(services=()))
    assert "no cluster lists service web" in sked("explain", "web").err


def test_a_stop_that_is_awaited_and_a_task_in_the_way_are_named(sked, hosts, declare, schedule, store) -> None:
    hosts("a", memory=4000)
    declare(a_cluster(services=("cache", "worker")), a_service("cache", desired=1), CACHE)
    declare(a_service("worker", 7, desired=1), WORKER)
    schedule()
    waiting = "worker" if "placed 0" in sked("explain", "worker").out else "cache"
    other = {"worker": "default-cache-1-0", "cache": "default-worker-7-0"}[waiting]
    assert f"move {other} (memory 2048 MB) away; or give it 96 MB more memory" in sked("explain", waiting).out


def test_what_is_written_by_others_can_t_drive_the_terminal(sked, hosts, declare, schedule, store) -> None:
    hosts("a", executors=["\x1b[31mbash"])
    declare(a_cluster(), a_service(desired=1), a_definition(containers=[a_container(type="ba\x1bsh")]))
    schedule()
    for args in (("web",), ("web", "--decision", "1"), ("web", "--history")):
        assert "\x1b" not in sked("explain", *args).out


def test_the_example_of_the_page_is_what_it_prints(sked, worker) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "explaining.md").read_text()
    shown = page.split("$ sked explain worker\n", 1)[1].split("```", 1)[0]
    printed = sked("explain", "worker").out.split("\n\n", 1)[0] + "\n"
    assert shown == printed


def test_a_service_that_cant_be_read_is_said_to_be_and_its_tasks_are_told_of(
    sked, store, hosts, declare, schedule
) -> None:
    hosts("a")
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    store.commit([Put(keys.service("web"), b"{")])
    ran = sked("explain", "web")
    assert ran.code == 2 and ran.err.startswith("sked: config/services/web can't be read: not a valid Service: ")
    assert "decision 1 about web" in sked("explain", "default-web-1-0").out


def test_a_record_with_a_range_of_ports_that_is_none_is_not_used(sked, store, hosts, declare, schedule) -> None:
    hosts("a")
    declare(a_cluster(), a_service(desired=1), a_definition(memory=100))
    schedule()
    [(key, entry)] = store.read(keys.decisions("web")).entries.items()
    store.commit([Put(key, entry.value.replace(b"20000-29999", b"0-99999999999"))])
    ran = sked("explain", "web", "--decision", "1")
    assert ran.code == 0 and "can't be used: expected a range of ports" in ran.err


def test_the_first_line_names_all_hard_rules(sked, hosts, declare) -> None:
    hosts("a")
    rules = Placement(
        require=["zone = a"],
        distinct_hosts=True,
        at_most=[AtMost(count=2, per="zone")],
        near=[Neighbour(service="db")],
        apart=[Neighbour(service="batch", per="zone")],
        leave_free=20,
    )
    declare(a_cluster(), a_service(placement=rules), a_definition(memory=100))
    (first, *_) = sked("explain", "web").out.splitlines()
    assert first.endswith(
        ", zone = a, distinct hosts, at most 2 per zone, near db, apart from batch per zone, leave 20 % free"
    )


def test_what_cant_be_read_is_named_once_and_options_that_exclude_each_other_are_refused(
    sked, store, hosts, declare, schedule
) -> None:
    hosts("a")
    for desired in (1, 2):
        declare(a_cluster(), a_service(desired=desired), a_definition(memory=100))
        schedule()
    store.commit([Put(keys.decision("web", 1), b"{")])
    for name in ("explain", "replay"):
        ran = sked(name, "web", "--decision", "1")
        assert (ran.code, ran.err.count(keys.decision("web", 1))) == (4, 1)
        assert "those that can be read: 2" in ran.err
    assert sked("explain", "web", "--history", "--decision", "2").code == 2


def test_of_one_that_a_program_outside_places_it_is_told_what_that_says(sked, hosts, declare, store) -> None:
    hosts("a")
    declare(a_cluster(), a_service(desired=2, scheduler="mine"), a_definition())
    nobody = 'no scheduler "mine" is installed; and no process that runs places by it'
    assert sked("explain", "web").out.splitlines()[-1].strip() == nobody
    cluster = ClusterStatus(desired=2, waiting=2, hosts={"a": ["a full moon"]})
    said = ServiceStatus(scheduler="mine", clusters={"default": cluster})
    store.commit(
        [Put(keys.scheduler("x-1"), encode(Presence(["mine"]))), Put(keys.service_status("web"), encode(said))]
    )
    told = 'no scheduler "mine" is installed; another process places by it, and says: a: a full moon'
    assert sked("explain", "web").out.splitlines()[-1].strip() == told


def test_a_scheduler_that_hangs_is_named_and_keeps_nobody_waiting(sked, hosts, declare, monkeypatch) -> None:
    over, asked = threading.Event(), []

    def waits(*_: object) -> float:
        asked.append(1)
        over.wait(60)
        return 0.0

    @hookimpl
    def sked_schedulers() -> object:
        return {"stuck": lambda: scored(waits)}

    plugin = SimpleNamespace(sked_schedulers=sked_schedulers)
    plugins = Plugins([SimpleNamespace(name="stuck", value="stuck", dist=None, load=lambda: plugin)])
    monkeypatch.setattr("sked_core.client.session.load_plugins", lambda *_, **more: plugins)
    monkeypatch.setattr("sked_core.runtime.plugins.aside.PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr("sked_core.client.looking.foresight.THOUGHT_SECONDS", 1.5)
    hosts("a")
    declare(a_cluster(), a_service(desired=1, scheduler="stuck"), a_definition())
    told = "scheduler stuck of stuck did not come back within 1.5 s"
    try:
        for command in ("simulate --scale web=2", "explain web", "explain web"):
            ran = sked(*command.split())
            assert told in ran.out + ran.err, command
    finally:
        over.set()
    assert len(asked) == 1
