"""Listings: the layout that scripts parse, the JSON that programs read, and stores with rubbish in them."""

from __future__ import annotations

import json

import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Cluster, ClusterStatus, Failure, Host, Mark, Service, ServiceStatus

# The example of the manual, byte for byte, spaces at the ends of lines included.
LAYOUT = (
    "id                         host             rejected     cluster     service        task def       version     "
    "healthy     \n"
    "----------------------------------------------------------------------------------------------------------------"
    "-----------\n"
    "default-helloworld-4-0     node-1.local     false        default     helloworld     helloworld     4           "
    "true        \n"
)


def test_tasks_are_printed_in_the_fixed_layout(sked, issue, task) -> None:
    issue(task(), healthy=True)
    ran = sked("tasks")
    assert (ran.code, ran.out, ran.err) == (0, LAYOUT, "")


def test_no_tasks_is_a_table_without_rows(sked, store) -> None:
    lines = sked("tasks").out.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["id", "host", "rejected", "cluster", "service", "task", "def", "version", "healthy"]
    assert lines[1] == "-" * len(lines[0])


def test_instance_2_stands_before_10_and_tables_are_never_cut(sked, issue, task) -> None:
    issue(*(task(service="s" * 60, instance=number) for number in (10, 2, 1)))
    ids = [line.split()[0] for line in sked("tasks").out.splitlines()[2:]]
    assert ids == [f"default-{'s' * 60}-4-{number}" for number in (1, 2, 10)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["a-db-4-0", "a-web-4-0", "b-web-4-0"]),
        (("--by-host", "h-2"), ["b-web-4-0"]),
        (("--by-cluster", "a"), ["a-db-4-0", "a-web-4-0"]),
        (("--by-service", "web"), ["a-web-4-0", "b-web-4-0"]),
        (("--by-service", "web", "--by-cluster", "a"), ["a-web-4-0"]),
        (("--by-host", "h-3"), []),
    ],
)
def test_tasks_by_what_they_belong_to(sked, issue, task, options, expected) -> None:
    issue(task(cluster="a", service="web", host="h-1"), task(cluster="a", service="db", host="h-1"))
    issue(task(cluster="b", service="web", host="h-2"))
    items = json.loads(sked("tasks", *options, "-o", "json").out)["items"]
    assert [item["id"] for item in items] == expected


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        (("--by-service", "wbe"), ["sked: no service wbe; did you mean web?"]),
        (("--by-host", "h-l"), ["sked: no host h-l; did you mean h-1?"]),
        (("--by-cluster", "zzz"), ["sked: no cluster zzz; `sked clusters` lists the clusters"]),
        (("--by-cluster", "zzz", "--by-host", "h-l"), ["host h-l", "cluster zzz"]),
        (("--by-service", "idle"), []),
        (("--by-service", "undeclared"), []),
    ],
)
def test_where_nothing_is_found_by_a_name_that_does_not_exist_it_is_said(
    sked, declare, issue, task, options, notes
) -> None:
    issue(task(service="undeclared", host="h-1"))
    declare(Cluster(name="default", services=["web"]), Host(name="h-1"))
    declare(*(Service(name=name, task_name=name, task_version=1) for name in ("web", "idle")))
    ran = sked("tasks", *options)
    assert ran.code == 0
    assert len(ran.out.splitlines()) == (3 if "undeclared" in options else 2)
    said = ran.err.splitlines()
    assert len(said) == len(notes) and all(note in line for note, line in zip(notes, said, strict=True)), said


def test_json_holds_the_stored_object_with_id_and_health(sked, store, issue, task) -> None:
    issue(task(), healthy=True)
    other = task(instance=1, rejected=True, reject_reason="port 80 is taken")
    stored = json.loads(encode(other)) | {"added_later": {"by": "others"}}
    store.commit([Put(keys.task(other.id), encode(stored))])
    document = json.loads(sked("tasks", "-o", "json").out)
    assert (document["api"], document["kind"]) == ("sked/v1", "TaskList")
    first, second = document["items"]
    assert first == json.loads(encode(task())) | {"id": "default-helloworld-4-0", "healthy": True, "failure": None}
    assert second == stored | {"id": "default-helloworld-4-1", "healthy": False, "failure": None}


FAILURE = Failure(
    host="node-1.local",
    attempts=4,
    unhealthy=True,
    reason="exited with code 1",
    output="GET http://127.0.0.1:20000: connection refused",
    log=["Traceback (most recent call last):", "  \x1b[31mboom"],
    at="2026-11-29T16:20:05Z",
    next_try="2026-11-29T16:20:21Z",
)


def test_why_tells_of_each_task_that_fails_below_the_table(sked, store, issue, task) -> None:
    issue(task(), healthy=True)
    issue(task(instance=1), healthy=False)
    issue(task(instance=2, rejected=True, reject_reason="port 80 is taken"))
    store.commit([Put(keys.failure(task(instance=1).id), encode(FAILURE))])
    plain, told = sked("tasks"), sked("tasks", "--why")
    assert told.out.startswith(plain.out)
    assert told.out[len(plain.out) :].splitlines() == [
        "",
        "default-helloworld-4-1 on node-1.local: 4 attempts, unhealthy, next try 2026-11-29T16:20:21Z",
        "  exited with code 1",
        "  check: GET http://127.0.0.1:20000: connection refused",
        "  log: Traceback (most recent call last):",
        "  log:   \\x1b[31mboom",
        "",
        "default-helloworld-4-2 on node-1.local: rejected",
        "  port 80 is taken",
    ]
    items = json.loads(sked("tasks", "-o", "json").out)["items"]
    assert [item["failure"] for item in items] == [None, json.loads(encode(FAILURE)), None]
    assert sked("tasks", "--why", "--by-service", "other").out.count("\n") == 2


def test_why_tells_what_the_check_of_a_task_says_that_has_not_failed_yet(sked, store, issue, task) -> None:
    issue(task(), healthy=False)
    said = {"healthy": False, "output": "GET /: 404", "cluster": "default", "service": "helloworld"}
    store.commit([Put(keys.health(task().host, task().id), encode(said))])
    assert sked("tasks", "--why").out.splitlines()[-3:] == [
        "",
        "default-helloworld-4-0 on node-1.local: not healthy",
        "  check: GET /: 404",
    ]


def test_the_failure_of_a_task_that_was_issued_elsewhere_meanwhile_is_not_its_own(sked, store, issue, task) -> None:
    issue(task(host="h-2"))
    store.commit([Put(keys.failure(task().id), encode(FAILURE)), Put("failures/odd", b"{")])
    assert sked("tasks", "--why").out == sked("tasks").out
    assert json.loads(sked("tasks", "-o", "json").out)["items"][0]["failure"] is None


def test_a_task_written_for_a_host_alone_is_listed_too(sked, store, task) -> None:
    by_hand = task(instance=7)
    store.commit([Put(keys.host_task(by_hand.host, by_hand.id), encode(by_hand))])
    assert "default-helloworld-4-7" in sked("tasks").out
    assert "default-helloworld-4-7" in sked("tasks", "--by-host", by_hand.host).out


@pytest.mark.parametrize(
    "rubbish", [b"", b"null", b"[]", b"{", b'{"cluster": {"name": "a/b"}}', b"\xff\xfe", b"[" * 9999]
)
def test_what_cannot_be_decoded_is_named_and_the_rest_listed(sked, store, issue, task, rubbish) -> None:
    issue(task(), healthy=True)
    store.commit([Put("state/tasks/default-helloworld-4-1", rubbish)])
    ran = sked("tasks")
    assert (ran.code, ran.out) == (0, LAYOUT)
    assert ran.err.startswith("sked: state/tasks/default-helloworld-4-1 is left out: ")


def test_a_record_under_the_key_of_another_task_is_left_out(sked, store, task) -> None:
    store.commit([Put(keys.task("default-helloworld-4-9"), encode(task()))])
    ran = sked("tasks")
    assert "default-helloworld-4-0" not in ran.out
    assert "the key says default-helloworld-4-9" in ran.err


def test_text_of_strangers_can_not_drive_the_terminal(sked, store, declare) -> None:
    declare(Host(name="h-1", address="\x1b[31mred\r\n", tags={"\x07bell": "\u202e"}))
    ran = sked("hosts")
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
    assert "\x07" not in ran.out
    assert r"\x1b[31mred\r\n" in ran.out
    assert json.loads(sked("hosts", "-o", "json").out)["items"][0]["address"] == "\x1b[31mred\r\n"


def test_hosts_tell_their_state_and_what_is_reserved(sked, store, declare, issue, task) -> None:
    for number in (1, 2, 3, 10):
        declare(Host(name=f"h-{number}", memory=1000, cpu_units=2048, executors=["bash", "docker"], address="10.0.0.1"))
    for name in ("h-1", "h-2", "h-10"):
        store.commit([Put(keys.live(name), b'{"agent": "x"}')])
    mark = Mark(state="draining", by="me@pc", at="2026-11-29T16:20:05Z", why="new kernel")
    store.commit([Put(keys.mark("h-2"), encode(mark))])
    store.commit([Put(keys.mark("h-10"), encode(Mark(state="cordoned")))])
    issue(task(host="h-1"), task(host="h-1", instance=1), task(host="h-1", instance=2, rejected=True))
    rows = [line.split() for line in sked("hosts").out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["h-1", "ready"], ["h-2", "draining"], ["h-3", "down"], ["h-10", "cordoned"]]
    assert rows[0][2:] == ["2", "200/1000", "MB", "100/2048", "bash,", "docker", "10.0.0.1"]
    item, marked, *_ = json.loads(sked("hosts", "-o", "json").out)["items"]
    assert {name: value for name, value in marked.items() if name.startswith("mark")} == {
        "mark": "draining",
        "mark_by": "me@pc",
        "mark_at": "2026-11-29T16:20:05Z",
        "mark_why": "new kernel",
    }
    assert (item["mark"], item["mark_by"], item["mark_why"]) == ("", "", "")
    assert (item["name"], item["state"], item["tasks"]) == ("h-1", "ready", 2)
    assert (item["memory"], item["reserved_memory"], item["reserved_cpu_units"]) == (1000, 200, 100)


def test_services_tell_how_far_they_are_and_why_tasks_wait(sked, store, declare, issue, task) -> None:
    declare(Service(name="web", task_name="web", task_version=4, desired=3, min=1, max=4))
    declare(Service(name="alone", task_name="web", task_version=4))
    declare(Cluster(name="default", services=["web"]))
    refusals = {"h-2": ["draining"], "h-10": ["draining"], "h-3": ["memory: free 1 MB < 2 MB", "cordoned"]}
    status = ClusterStatus(desired=3, issued=2, waiting=1, hosts=refusals)
    store.commit(
        [Put(keys.service_status("web"), encode(ServiceStatus(scheduler="default", clusters={"default": status})))]
    )
    issue(task(service="web"), healthy=True)
    issue(task(service="web", instance=1), healthy=False)
    lines = sked("services").out.splitlines()
    assert " ".join(lines[0].split()) == "service cluster task def version desired issued healthy waiting why"
    alone, web = lines[2:]
    assert alone.split() == ["alone", "web", "4", "1", "0", "0", "0", "in", "no", "cluster"]
    assert web.split()[:8] == ["web", "default", "web", "4", "3", "2", "1", "1"]
    assert "h-2, h-10: draining | h-3: memory: free 1 MB < 2 MB; cordoned" in web
    place = json.loads(sked("services", "-o", "json").out)["items"][1]["clusters"][0]
    assert (place["cluster"], place["issued"], place["healthy"], place["waiting"]) == ("default", 2, 1, 1)


def test_clusters(sked, declare, issue, task) -> None:
    declare(Cluster(name="default", datacenter="dc1", services=["web", "db"]))
    declare(Cluster(name="edge", services=[], hosts=["h-1", "h-2"]))
    issue(task(service="web"))
    lines = sked("clusters").out.splitlines()
    assert lines[2].split() == ["default", "dc1", "web,", "db", "every", "host", "1"]
    assert lines[3].split() == ["edge", "h-1,", "h-2", "0"]
    document = json.loads(sked("clusters", "-o", "json").out)
    assert document["kind"] == "ClusterList"
    assert document["items"][1]["hosts"] == ["h-1", "h-2"]


def test_plugins_and_version(sked) -> None:
    assert "scheduler default" in sked("plugins").out
    names = {item["name"] for item in json.loads(sked("plugins", "-o", "json").out)["items"]}
    assert "core" in names
    assert sked("version").out.startswith("sked ")
    assert json.loads(sked("version", "-o", "json").out)["items"][0]["version"] in sked("version").out
