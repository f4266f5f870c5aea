"""``sked state ls``, ``get``, ``watch`` and ``check``: keys as they are, whoever wrote them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sked_core.client import raw
from sked_core.client.looking.linting import lint
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode, patch
from sked_core.model.types import Event, Failure, Health, Mark, Moves, Rollout, Service, ServiceStatus
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b[2J\x9b31m‮evil\U000e0001"


def test_keys_are_listed_with_their_revisions_and_sizes(sked, store, declare) -> None:
    declare(a_service(), a_definition())
    lines = sked("state", "ls").out.splitlines()
    assert lines[0].split() == ["key", "revision", "bytes", "lease"] and len(lines) == 4
    (item,) = json.loads(sked("state", "ls", "config/services/", "-o", "json").out)["items"]
    entry = store.read("config/services/web").entries["config/services/web"]
    assert item == {"key": "config/services/web", "revision": entry.revision, "size": len(entry.value), "lease": ""}
    assert sked("state", "ls", "../x").code == 2


def test_a_value_is_printed_as_json_in_lines_and_says_the_same(sked, store) -> None:
    value = b'{"a":1.0,"big":123456789012345678901234567890,"a":"\xc3\xbc"}'
    store.commit([Put("config/services/web", value)])
    printed = sked("state", "get", "config/services/web").out
    assert printed == '{\n  "a": 1.0,\n  "big": 123456789012345678901234567890,\n  "a": "ü"\n}\n'


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({HOSTILE: [HOSTILE]}, ensure_ascii=False).encode(),
        HOSTILE.encode(),
        b"\xff\x00\x1b",
        b"",
        b"3",
        b'"' + HOSTILE.encode() + b'"',
        b"[" * 5000,
    ],
)
def test_no_value_drives_a_terminal_or_breaks_the_document(sked, store, value) -> None:
    store.commit([Put("state/tasks/x", value)])
    for arguments in (("get", "state/tasks/x"), ("get", "state/tasks/x", "-o", "json"), ("check",)):
        ran = sked("state", *arguments)
        assert (ran.out + ran.err).replace("\n", "").isprintable()
    (item,) = json.loads(sked("state", "get", "state/tasks/x", "-o", "json").out)["items"]
    known = item.get("json") or item.get("text") or item.get("base64") or ""
    assert item["size"] == len(value) and (known or not value)


def test_a_key_that_is_not_there_is_not_found_with_one_that_is_like_it(sked, declare) -> None:
    declare(a_service())
    ran = sked("state", "get", "config/services/wob")
    assert ran.code == 4 and 'did you mean "config/services/web"?' in ran.err


def test_changes_are_told_one_by_one_from_now_on(store) -> None:
    stop, seen = threading.Event(), []
    store.commit([Put("a/old", b"1")])
    ready = threading.Event()

    def follow() -> None:
        for change in raw.changes(_Ready(store, ready), "a/", stop):
            seen.append(raw.change_json(change))
            if len(seen) == 3:
                stop.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert ready.wait(60)
    store.commit([Put("a/x", b'{"b":1}'), Put("c/y", b"no")])
    store.commit([Put("a/x", b"text")]) if _until(lambda: len(seen) == 1) else None
    store.commit([Delete("a/old")]) if _until(lambda: len(seen) == 2) else None
    thread.join(60)
    assert [(one["change"], one["key"]) for one in seen] == [("put", "a/x"), ("put", "a/x"), ("delete", "a/old")]
    assert seen[1]["text"] == "text" and seen[0]["revision"] < seen[1]["revision"]


def test_the_command_prints_changes_as_lines_of_json_until_it_is_interrupted(store, url) -> None:
    command = [sys.executable, "-m", "sked_core.surface.cli", "state", "watch", "state/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))
        reader.start()
        for number in range(600):  # until it has begun to look, what is written is no change to it
            store.commit([Put("state/tasks/x", b'{"n":%d}' % number)])
            reader.join(0.2)
            if not reader.is_alive():
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    told = json.loads(lines[0])
    assert (told["change"], told["key"]) == ("put", "state/tasks/x") and "n" in told["json"]
    assert process.returncode == 130


class _Ready:
    """The store, telling when it is waited on for the first time."""

    def __init__(self, store: Any, ready: threading.Event) -> None:
        self._store, self._ready = store, ready

    def __getattr__(self, name: str) -> Any:
        if name == "wait":
            self._ready.set()
        return getattr(self._store, name)


def _until(holds: Callable[[], bool]) -> bool:
    tick = threading.Event()
    for _ in range(6000):
        if holds():
            return True
        tick.wait(0.01)
    raise AssertionError("never")


# --- check ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sound(store, declare, issue) -> Any:
    """A store with a little of everything, all of it right; returns the store."""
    definition, cluster = a_definition(), a_cluster()
    declare(definition, cluster, a_service(desired=2), a_host("h1").host)
    store.commit([Put(keys.STORE_UID, b"00ff00ff00ff00ff")])
    issue(*(a_task("h1", number, definition, port=20000 + number) for number in range(2)), healthy=True)
    event = Event(at="", who="s", what="task.issued", subject="task/default-web-1-0")
    store.commit(
        [
            Put(keys.events("1-s-1"), encode([event])),
            Put(keys.agent("h1"), b"12"),
            Put(keys.mark("h1"), encode(Mark("cordoned"))),
            Put(keys.service_status("web"), encode(ServiceStatus(scheduler="default"))),
            Put(keys.ended_rollout("web", 1), encode(Rollout(number=1, task_name="web", task_version=1))),
            Put("somebody/elses", b"business"),
        ]
    )
    return store


def test_a_sound_store_has_no_findings(sked, sound) -> None:
    ran = sked("state", "check")
    assert (ran.code, ran.out) == (0, "") and "0 findings" in ran.err


def task(number: int = 0, **fields: Any) -> bytes:
    return encode(a_task("h1", number, a_definition(), **{"port": 20000 + number, **fields}))


T0 = "default-web-1-0"
FAULTS: dict[str, tuple[list[Any], str, str]] = {
    "undecodable": ([Put(keys.service("web"), b'{"name": 3}')], keys.service("web"), "can't be read"),
    "of another name": (
        [Put(keys.service("web"), encode(a_service("api")))],
        keys.service("web"),
        "config/services/api",
    ),
    "illegal name": ([Put("config/services/Web_1", b"{}")], "config/services/Web_1", "no such key can be"),
    "too deep": ([Put("config/clusters/a/b", b"{}")], "config/clusters/a/b", "no such key can be"),
    "unknown kind": ([Put("config/nonsense/a", b"{}")], "config/nonsense/a", "no such key is known"),
    "too large": (
        [Put(keys.failure(T0), encode(Failure(host="h1"))[:-1] + b', "x": "' + b"x" * 170_000 + b'"}')],
        keys.failure(T0),
        "bytes are more than",
    ),
    "no such service": (
        [Put(keys.cluster("default"), encode(a_cluster(services=("web", "api"))))],
        keys.cluster("default"),
        "lists service api",
    ),
    "no such host": (
        [Put(keys.cluster("default"), encode(a_cluster(hosts=["h7"])))],
        keys.cluster("default"),
        "host h7",
    ),
    "no such version": ([Put(keys.service("web"), encode(a_service(version=7)))], keys.service("web"), "web/7"),
    "bounds": (
        [Put(keys.service("web"), encode(Service(name="web", task_name="web", task_version=1, desired=9, max=3)))],
        keys.service("web"),
        "does not hold",
    ),
    "colliding ids": (
        [
            Put(keys.cluster("default-web"), encode(a_cluster("default-web", services=("x",)))),
            Put(keys.cluster("default"), encode(a_cluster(services=("web", "web-x")))),
            Put(keys.service("x"), encode(a_service("x", task_name="web"))),
            Put(keys.service("web-x"), encode(a_service("web-x", task_name="web"))),
        ],
        "config/clusters/default-web",
        "claims the task ids",
    ),
    "one key only": ([Delete(keys.host_task("h1", T0))], keys.task(T0), "is missing"),
    "keys differ": ([Put(keys.host_task("h1", T0), patch(task(), port=9))], keys.task(T0), "differs"),
    "task id": ([Put(keys.task(T0), task(1))], keys.task(T0), "its value is that of"),
    "task id by host": ([Put(keys.host_task("h1", T0), task(1))], keys.host_task("h1", T0), "default-web-1-1"),
    "on two hosts": (
        [Put(keys.host("h2"), encode(a_host("h2").host)), Put(keys.host_task("h2", T0), patch(task(), host="h2"))],
        keys.host_task("h2", T0),
        "stands under h1 and h2",
    ),
    "orphan": (
        [
            Delete(keys.service("web")),
            Delete(keys.service_status("web")),
            Put(keys.cluster("default"), encode(a_cluster(services=()))),
        ],
        keys.task(T0),
        "no scheduler says",
    ),
    "one port twice": (
        [
            Put(key, task(1, port=20000))
            for key in (keys.task("default-web-1-1"), keys.host_task("h1", "default-web-1-1"))
        ],
        keys.task("default-web-1-1"),
        "port 20000",
    ),
    "stranger of a host": (
        [Put(keys.host_task("h9", "a-b-1-0"), b"{}")],
        keys.host_task("h9", "a-b-1-0"),
        "can't be read",
    ),
    "mark of nobody": ([Put(keys.mark("h9"), encode(Mark("draining")))], keys.mark("h9"), "which is not there"),
    "health of nobody": (
        [Put(keys.health("h1", "a-b-1-0"), encode(Health(True)))],
        keys.health("h1", "a-b-1-0"),
        "no such task",
    ),
    "failure of nobody": (
        [Put(keys.failure("a-b-1-0"), encode(Failure(host="h1")))],
        keys.failure("a-b-1-0"),
        "no such task",
    ),
    "moves of nobody": ([Put(keys.moves("api"), encode(Moves()))], keys.moves("api"), "is not declared"),
    "origin is gone": (
        [
            Put(
                keys.rollout("web"),
                encode(Rollout(number=2, task_name="web", task_version=1, from_name="web", from_version=9)),
            )
        ],
        keys.rollout("web"),
        "web/9",
    ),
    "too much history": (
        [
            Put(keys.ended_rollout("web", number), encode(Rollout(number=number, task_name="web", task_version=1)))
            for number in range(1, 30)
        ],
        keys.ended_rollout("web", 1),
        "29 roll-outs",
    ),
    "slot": ([Put("decisions/web/8", b"{}")], "decisions/web/8", "no such key can be"),
    "count": ([Put(keys.agent("h1"), b"twelve")], keys.agent("h1"), "expected a number"),
    "no id": ([Delete(keys.STORE_UID)], keys.STORE_UID, "has no id"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_where_it_is_with_what_to_do(sked, sound, fault) -> None:
    ops, key, what = FAULTS[fault]
    sound.commit(ops)
    ran = sked("state", "check", "-o", "json")
    found = {item["key"]: item for item in json.loads(ran.out)["items"]}
    assert ran.code == 1 and what in found[key]["what"], found
    assert all(item["remedy"] for item in found.values())
    assert f"{key}: " in sked("state", "check").out


def test_an_empty_store_and_what_is_not_sked_s_have_no_findings(sked, store) -> None:
    assert lint({}) == []
    store.commit([Put("somebody/elses", b"\xff")])
    assert sked("state", "check").code == 0
