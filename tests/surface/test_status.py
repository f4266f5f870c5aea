"""``sked status``: what needs somebody, by name and with the reason, and what the loss of a host would come to."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.trouble import Trouble
from sked_core.model.types import ClusterStatus, Failure, Mark, Moves, Presence, Rollout, ServiceStatus, TaskMove
from sked_core.testing.builders import a_service


@pytest.fixture
def scheduler(store) -> None:
    """A living scheduler process."""
    store.commit([Put(keys.scheduler("s1"), encode(Presence(["binpack", "default"])))])


def urgent(ran) -> list[str]:
    """The first line, and what needs somebody: each with its command behind ``->``."""
    first, *rest = ran.out.partition("\nstore:")[0].splitlines()
    return [first, *(f"{what.strip()} -> {more.strip()}" for what, more in zip(rest[::2], rest[1::2], strict=True))]


def lines(ran) -> dict[str, str]:
    """The lines with a name in front of them, and those that follow by the number: ``services+1``."""
    found, name, number = {}, "", 0
    for line in f"store:{ran.out.partition(chr(10) + 'store:')[2]}".splitlines():
        if line.startswith("  "):
            number += 1
            found[f"{name}+{number}"] = line.strip()
        else:
            name, number = line.partition(":")[0], 0
            found[name] = line.partition(":")[2].strip()
    return found


def test_all_is_well_in_a_few_lines(sked, url, up, running, scheduler) -> None:
    up(h1=1000, h2=1000, h3=1000)
    running("web", "h1", "h2", memory=300)
    ran = sked("status")
    assert (ran.code, ran.err) == (0, "")
    assert urgent(ran) == ["all is well"]
    assert lines(ran) == {
        "store": url,
        "hosts": "3: 3 ready",
        "schedulers": "1",
        "schedulers+1": "s1 places by binpack, default",
        "tasks": "2: 2 healthy",
        "services": "1: 1 ok",
        "survives the loss of any one host": "yes; the most to move are those of h1: 1 task",
    }


def test_an_empty_store_says_what_to_do(sked, store) -> None:
    found = lines(sked("status"))
    assert found["hosts"].startswith("none: start an agent") and found["schedulers"].startswith(
        "none: what runs goes on"
    )
    assert found["survives the loss of any one host"] == "yes, no host has any tasks"


def test_what_a_loss_would_come_to_is_not_known_where_nobody_here_places_the_tasks(sked, declare, up, running) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1")
    declare(a_service("web", desired=1, scheduler="mine"))
    assert lines(sked("status"))["survives the loss of any one host"].startswith("not known: what places the tasks")
    survival = json.loads(sked("status", "-o", "json").out)["items"][0]["losses"]
    assert (survival["worked_out"], survival["survived"]) == (False, None)


def test_hosts_that_are_down_or_marked_are_named(sked, store, up) -> None:
    up(h1=1000, h2=1000, h3=1000, h4=1000)
    store.commit([Delete(keys.live("h3")), Put(keys.mark("h2"), encode(Mark("draining")))])
    store.commit([Put(keys.mark("h4"), encode(Mark("cordoned")))])
    assert lines(sked("status"))["hosts"] == "4: 1 ready, 1 down (h3), 1 draining (h2), 1 cordoned (h4)"


def test_services_that_need_somebody_come_first_each_with_the_reason(
    sked, store, up, running, issue, declare, scheduler
) -> None:
    up(h1=8000)
    running("fine", "h1")
    running("waits", "h1", desired=3)
    refused = ClusterStatus(desired=3, issued=1, waiting=2, hosts={"h1": ["memory: free 0 MB < 5 MB"]})
    store.commit(
        [Put(keys.service_status("waits"), encode(ServiceStatus(scheduler="default", clusters={"of-waits": refused})))]
    )
    [crashes] = running("crashes", "h1")
    failure = Failure(host="h1", attempts=3, reason="exit code 1\nmore")
    store.commit([Put(keys.failure(crashes.id), encode(failure))])
    [rejected] = running("refused", "h1")
    issue(replace(rejected, rejected=True, reject_reason="port 80 is in use"))
    running("rolls", "h1")
    store.commit(
        [Put(keys.rollout("rolls"), encode(Rollout(number=2, task_name="rolls", task_version=1, state="paused")))]
    )
    running("failed", "h1")
    gone = Rollout(number=3, task_name="failed", task_version=1, state="failed", reason="bad-0 on h1: exit code 2\nlog")
    store.commit([Put(keys.rollout("failed"), encode(gone))])
    running("starts", "h1", desired=2)
    running("elsewhere", "h1")
    declare(a_service("elsewhere", desired=1, scheduler="mine"), a_service("nowhere"))
    store.commit([Put(keys.service_status("deleted"), encode(ServiceStatus(scheduler="mine", clusters={})))])
    issue(replace(rejected, service="deleted", rejected=False))
    issue(replace(rejected, service="stranger", rejected=False))
    ran = sked("status")
    assert urgent(ran) == [
        "8 things need somebody, 6 of them at once:",
        "service/crashes: failing: of-crashes-crashes-1-0 on h1: exit code 1 -> sked why of-crashes-crashes-1-0",
        "service/failed: failing: roll-out 3, to version 1, failed: bad-0 on h1: exit code 2"
        " -> sked rollout status failed",
        "service/refused: failing: h1 rejected of-refused-refused-1-0: port 80 is in use"
        " -> sked why of-refused-refused-1-0",
        "service/waits: waiting: 2 of 3 tasks in of-waits: h1: memory: free 0 MB < 5 MB -> sked explain waits",
        "service/deleted: not scheduled: it is not declared any more, and no process is there that places by mine"
        " -> sked tasks --by-service deleted",
        "service/elsewhere: not scheduled: no process is there that places by mine -> sked describe service/elsewhere",
        "service/rolls: rolling out: roll-out 2, to version 1, paused -> sked rollout status rolls",
        "service/nowhere: in no cluster -> sked describe service/nowhere",
    ]
    assert [value for name, value in lines(ran).items() if name.startswith("services")] == [
        "11: 3 failing, 1 waiting, 2 not scheduled, 1 rolling out, 1 starting, 1 stopping, 1 in no cluster, 1 ok",
        "starts starting: 1 of 2 tasks healthy",
        "stranger stopping: it is not declared any more",
    ]


def test_what_the_worst_loss_leaves_without_a_place_is_told_with_the_reasons(sked, up, running, scheduler) -> None:
    up(h1=1000, h2=1000, h3=500)
    running("web", "h1", "h2", memory=700)
    running("api", "h1", memory=100)
    found = lines(sked("status"))
    name = "survives the loss of any one host"
    assert found[name] == "no: losing h1 leaves 1 of its 2 tasks without a place: 1 of web in of-web"
    assert found[f"{name}+1"] == "of-web/web: h2: memory: free 300 MB < 700 MB | h3: memory: free 400 MB < 700 MB"
    assert found[f"{name}+2"] == "losing any of these leaves some as well: h2"
    assert urgent(sked("status")) == [
        "1 thing needs somebody:",
        "host/h1: losing it would leave 1 task without a place; so would losing 1 other host"
        " -> sked simulate --lose h1",
    ]


def test_one_host_alone_is_no_reason_to_call_somebody(sked, up, running, scheduler) -> None:
    up(h1=1000)
    running("web", "h1")
    ran = sked("status")
    assert urgent(ran) == ["all is well"]
    assert lines(ran)["survives the loss of any one host+1"] == "of-web/web: there is no other host"


def test_what_would_take_long_is_left_out_and_done_on_demand(sked, up, running, scheduler, monkeypatch) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", "h2", memory=700)
    monkeypatch.setattr("sked_core.client.looking.overview.MAX_WORK", 1)
    name = "survives the loss of any one host"
    assert lines(sked("status"))[name] == "not worked out for 2 hosts: sked status --losses"
    assert json.loads(sked("status", "-o", "json").out)["items"][0]["losses"]["survived"] is None
    assert lines(sked("status", "--losses"))[name].startswith("no: losing h1 leaves 1 of its 1 task")


def test_it_fits_on_a_screen_whatever_is_wrong(sked, store, up, running) -> None:
    up(h1=8000)
    for number in range(7):
        running(f"alike-{number}", "h1")
    found = [value for name, value in lines(sked("status")).items() if name.startswith("services+")]
    names = "alike-0, alike-1, alike-2, alike-3, alike-4 and 2 more"
    assert found == [f"{names} not scheduled: no process is there that places by default"]
    store.commit([Put(keys.scheduler("s1"), encode(Presence(["default"])))])
    for number in range(20):
        running(f"unlike-{number}", "h1", desired=number + 2)
    found = [value for name, value in lines(sked("status")).items() if name.startswith("services+")]
    assert found[0] == "unlike-0 starting: 1 of 2 tasks healthy"
    assert found[12:] == ["and 8 more such lines: -o wide"]
    wide = lines(sked("status", "-o", "wide"))
    assert wide["services+20"] == "unlike-19 starting: 1 of 21 tasks healthy"


def test_a_scheduler_whose_rounds_fail_is_told_with_since_when_and_by_what(sked, store, up, running) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1")
    trouble = Trouble(since="2026-11-29T16:20:05Z", why="disk I/O error", service="web")
    store.commit([Put(keys.scheduler("s1"), encode(Presence(["default"], trouble)))])
    store.commit([Put(keys.scheduler("s2"), encode(Presence(["default"], replace(trouble, service=""))))])
    assert urgent(sked("status", "-o", "wide")) == [
        "2 things need somebody:",
        "service/web: rounds of scheduler s1 fail since 2026-11-29T16:20:05Z, while looking at service web: disk I/O"
        " error -> sked state get scheduling/schedulers/s1",
        "schedulers: rounds of scheduler s2 fail since 2026-11-29T16:20:05Z: disk I/O error"
        " -> sked state get scheduling/schedulers/s2",
    ]
    said = json.loads(sked("status", "-o", "json").out)["items"][0]["schedulers"]
    assert said[0]["trouble"] == {"since": "2026-11-29T16:20:05Z", "why": "disk I/O error", "service": "web"}
    assert "disk I/O error" in sked("state", "get", "scheduling/schedulers/s1").out


def test_of_a_service_that_is_blocked_it_says_since_when(sked, store, up, running, scheduler) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", desired=2)
    said = ClusterStatus(desired=2, issued=1, blocked="scheduler mine failed: KeyError", since="2026-11-29T16:20:05Z")
    status = ServiceStatus(scheduler="default", clusters={"of-web": said})
    store.commit([Put(keys.service_status("web"), encode(status))])
    assert urgent(sked("status"))[1] == (
        "service/web: waiting: of-web: scheduler mine failed: KeyError (since 2026-11-29T16:20:05Z) -> sked explain web"
    )


def test_programs_get_all_of_it(sked, url, up, running, scheduler) -> None:
    up(h1=1000, h2=500)
    running("web", "h1", memory=700)
    found = json.loads(sked("status", "-o", "json").out)
    assert found["kind"] == "Status"
    assert found["items"] == [
        {
            "store": url,
            "attention": [
                {
                    "severity": "warning",
                    "subject": "host/h1",
                    "what": "losing it would leave 1 task without a place",
                    "command": "sked simulate --lose h1",
                }
            ],
            "hosts": {"ready": ["h1", "h2"], "down": [], "draining": [], "cordoned": []},
            "schedulers": [{"name": "s1", "schedulers": ["binpack", "default"], "trouble": None}],
            "tasks": {"issued": 1, "healthy": 1, "rejected": 0, "stopping": 0},
            "services": [{"service": "web", "state": "ok", "why": ""}],
            "losses": {
                "worked_out": True,
                "survived": False,
                "hosts": 1,
                "unsafe": ["h1"],
                "worst": {
                    "host": "h1",
                    "tasks": 1,
                    "unplaced": [
                        {
                            "cluster": "of-web",
                            "service": "web",
                            "tasks": 1,
                            "refusals": {"h2": ["memory: free 500 MB < 700 MB"]},
                        }
                    ],
                },
            },
        }
    ]


def test_what_needs_somebody_stands_apart_with_the_command_that_tells_more(
    sked, store, up, running, issue, declare
) -> None:
    up(h1=8000, h2=8000, h3=8000)
    [crashes] = running("crashes", "h1")
    running("fine", "h2")
    failure = Failure(host="h1", attempts=3, reason="exit code 1\nmore")
    store.commit([Put(keys.failure(crashes.id), encode(failure)), Delete(keys.live("h2")), Delete(keys.live("h3"))])
    declare(a_service("nowhere", scheduler="mine"))
    store.commit([Put(keys.cluster("odd"), b"{")])
    found = json.loads(sked("status", "-o", "json").out)["items"][0]["attention"]
    assert [(one["severity"], one["subject"], one["command"]) for one in found] == [
        ("critical", "schedulers", "sked run scheduler --help"),
        ("critical", "host/h2", "sked describe host/h2"),
        ("critical", "service/crashes", "sked why of-crashes-crashes-1-0"),
        ("warning", "host/h3", "sked describe host/h3"),
        ("warning", "key/config/clusters/odd", "sked state get config/clusters/odd"),
        ("warning", "host/h1", "sked simulate --lose h1"),
    ]
    assert found[2]["what"] == "failing: of-crashes-crashes-1-0 on h1: exit code 1"


def test_hosts_that_are_down_share_a_line_with_all_the_tasks_that_are_there(sked, store, up, running) -> None:
    up(**{f"h{number}": 8000 for number in range(9)})
    running("web", *(f"h{number}" for number in range(7)), "h3")
    store.commit([Delete(keys.live(f"h{number}")) for number in range(1, 9)])
    told = urgent(sked("status"))
    names = "host/h1, host/h2, host/h3, host/h4, host/h5 and 1 more"
    assert f"{names}: no agent answers, 7 tasks there in all -> sked describe host/h1" in told
    assert "host/h7, host/h8: no agent answers, no tasks there -> sked describe host/h7" in told
    found = json.loads(sked("status", "-o", "json").out)["items"][0]["attention"]
    said = {one["subject"]: one["what"] for one in found}
    assert (said["host/h3"], said["host/h4"]) == (
        "no agent answers, 2 tasks there",
        "no agent answers, 1 task there",
    )


def test_a_service_that_cant_be_read_is_not_taken_for_one_that_goes(sked, store, up, running, scheduler) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", memory=300)
    store.commit([Put(keys.service("web"), b"{")])
    ran = sked("status")
    assert "note: left out, since it can't be read: config/services/web" in ran.err
    assert urgent(ran)[1].startswith("service/web: unreadable: config/services/web: not a valid Service: ")


def test_a_service_with_moves_under_way_is_moving_unless_it_needs_somebody(sked, store, up, running, scheduler) -> None:
    up(h1=1000, h2=1000)
    first, second = running("web", "h1", "h1", memory=300)
    moves = [
        TaskMove(task=first.id, cluster="of-web", source="h1", to="h2", state="starting", replacement="of-web-web-1-2"),
        TaskMove(task=second.id, cluster="of-web", source="h1", to="h2"),
    ]

    def state(blocked: str, desired: int = 2) -> str:
        said = ServiceStatus(scheduler="default", clusters={"of-web": ClusterStatus(desired=2, blocked=blocked)})
        record = Moves(moves=moves, desired=desired)
        store.commit([Put(keys.service_status("web"), encode(said)), Put(keys.moves("web"), encode(record))])
        ran = sked("status")
        return lines(ran).get("services+1") or urgent(ran)[1]

    way = f"{first.id} from h1 to h2, its replacement of-web-web-1-2 is becoming healthy"
    assert state(f"waiting for {first.id} to move from h1 to h2 (1 of 2)") == f"web moving: 2 moves left: {way}"
    assert state("") == f"web moving: 2 moves left: {way}"
    stuck = "service/web: waiting: of-web: {} -> sked explain web"
    assert state("no way on") == stuck.format("no way on")
    assert state("waiting for that", desired=3) == stuck.format("waiting for that"), "scaling ends moves"


def test_a_command_that_is_shown_is_safe_to_paste_whatever_the_store_holds(sked, store, up, running, scheduler) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", memory=300)
    store.commit([Put("config/services/$(id)", b"{")])
    assert "sked explain '$(id)'" in sked("status").out


def test_what_stands_among_the_schedulers_and_is_none_does_not_count_and_is_named(sked, store, up, running) -> None:
    """Under a name that no scheduler has, or with a value that is no Presence."""
    store.commit([Put(keys.scheduler("real"), encode(Presence(["default"])))])
    odd = ["<script>", "deep/er", "-"]
    store.commit([Put(keys.SCHEDULERS + name, encode(Presence(["default"]))) for name in odd[:2]])
    store.commit([Put(keys.SCHEDULERS + odd[2], b"nonsense")])
    ran = sked("status", "-o", "json")
    assert [one["name"] for one in json.loads(ran.out)["items"][0]["schedulers"]] == ["real"]
    for name in odd:
        assert any(f"{keys.SCHEDULERS}{name} " in line for line in ran.err.splitlines()), ran.err
