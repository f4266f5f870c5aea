"""Roll-outs as people see and steer them: begun by an apply, looked at, held, undone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import (
    Cluster,
    ClusterStatus,
    Event,
    Failure,
    Host,
    Rollout,
    Service,
    ServiceStatus,
    TaskDefinition,
    UpdatePolicy,
)
from sked_core.runtime.state import marker
from sked_core.surface import progress

BY = {"by": "al@web-1", "why": "sked apply", "at": "2026-11-29T16:20:05Z"}
UNDER_WAY = Rollout(number=8, task_name="web", task_version=3, from_name="web", from_version=2, **BY)
LOG = [f"line {number}" for number in range(30)]
FAILURE = Failure(
    host="node-1.local", attempts=3, reason="web: exit 1", output="connection refused", log=LOG, next_try="16:21:00Z"
)


def stored(store, key: str) -> dict:
    return decode(store.read(key).entries[key].value, dict)


def events(store) -> list[Event]:
    entries = sorted(store.read(keys.EVENTS).entries.items())
    return [event for _, entry in entries for event in decode(entry.value, list[Event])]


@pytest.fixture
def put(store):
    """``put(key=value)``: write one object."""
    return lambda key, value: store.commit([Put(key, encode(value))])


@pytest.fixture
def web(declare, put):
    """The service ``web`` at version 3 of 1 to 3; ``web(rollout)``: with this roll-out under way, or ended."""
    for version in (1, 2, 3):
        declare(TaskDefinition(name="web", version=version))
    declare(Cluster(name="default", services=["web"]))

    def write(*rollouts: Rollout, update: UpdatePolicy | None = None, version: int = 3) -> None:
        policy = {"update": update} if update else {}
        declare(Service(name="web", task_name="web", task_version=version, desired=3, min=2, max=4, **policy))
        for one in rollouts:
            put(keys.ended_rollout("web", one.number) if one.result else keys.rollout("web"), one)

    return write


@pytest.fixture
def tasks(issue, task):
    """``tasks(2, 1)``: two tasks of version 3 and one of version 2, all healthy."""

    def write(new: int, old: int) -> None:
        issue(*(task(service="web", version=3, instance=number) for number in range(new)), healthy=True)
        issue(*(task(service="web", version=2, instance=number) for number in range(old)), healthy=True)

    return write


MANIFEST = """\
clusters: [{name: default, services: [web]}]
services: [{name: web, task_name: web, task_version: %d, desired: %d}]
task_definitions:
  - {name: web, version: %d, containers: [{name: web, type: bash, executor: {start: sleep 1000}}]}
"""


@pytest.fixture
def apply(sked, tmp_path):
    """``apply(2, desired=3)``: version 2 of ``web``; more arguments go to the command."""

    def run(version: int, *args: str, desired: int = 2):
        path = tmp_path / "web.yml"
        path.write_text(MANIFEST % (version, desired, version))
        return sked("apply", "-f", str(path), *args)

    return run


def test_only_another_version_of_a_stored_service_begins_a_roll_out(store, apply) -> None:
    assert apply(1).out.splitlines()[1] == "service/web created"
    assert apply(1, desired=4).out.splitlines()[1] == "service/web configured"
    assert apply(1, desired=4).out.splitlines()[1] == "service/web unchanged"
    assert store.read(keys.ROLLOUTS).entries == {}
    ran = apply(2, "--why", "release 7", desired=4)
    assert ran.out.splitlines()[1] == "service/web configured (began roll-out 1: version 1 -> 2)"
    rollout = stored(store, "scheduling/rollouts/web")
    assert {name: rollout[name] for name in ("number", "kind", "task_version", "from_version", "state", "why")} == {
        "number": 1, "kind": "update", "task_version": 2, "from_version": 1, "state": "running", "why": "release 7",
    }  # fmt: skip
    assert "@" in rollout["by"]
    entries = store.read("").entries
    assert entries["scheduling/rollouts/web"].revision == entries["config/services/web"].revision


def test_what_an_apply_did_is_told_in_the_same_commit(store, apply) -> None:
    apply(1)
    apply(2)
    apply(2)
    told = [(one.what, one.subject, one.service, one.before, one.after) for one in events(store)]
    assert told == [
        ("task_definition.applied", "task_definition/web/1", "", "", ""),
        ("service.applied", "service/web", "web", "", "web 1"),
        ("cluster.applied", "cluster/default", "", "", ""),
        ("task_definition.applied", "task_definition/web/2", "", "", ""),
        ("service.applied", "service/web", "web", "web 1", "web 2"),
        ("rollout.started", "service/web", "web", "web 1", "web 2"),
    ]
    last = max(store.read(keys.EVENTS).entries.values(), key=lambda entry: entry.revision)
    assert last.revision == store.read("config/services/web").entries["config/services/web"].revision


def test_a_dry_run_says_what_would_begin_and_writes_nothing(store, apply) -> None:
    apply(1)
    before = store.read("").entries
    ran = apply(2, "--dry-run")
    assert ran.out.splitlines()[1] == "service/web configured (dry run, would begin roll-out 1: version 1 -> 2)"
    assert store.read("").entries == before


def test_an_apply_supersedes_what_is_under_way(store, apply, put) -> None:
    apply(1)
    apply(2)
    put(keys.rollout("web"), stored(store, "scheduling/rollouts/web") | {"ticket": "OPS-1"})
    assert apply(3).out.splitlines()[1] == "service/web configured (began roll-out 2: version 1 -> 3)"
    former = stored(store, "rollouts/web/1")
    assert (former["result"], former["task_version"], former["ticket"]) == ("superseded", 2, "OPS-1")
    assert former["ended"]
    assert [one.what for one in events(store)][-2:] == ["rollout.superseded", "rollout.started"]


def test_many_services_are_rolled_out_at_once_each_with_its_own(sked, store, tmp_path) -> None:
    store.max_ops = 12
    names = [f"s-{number}" for number in range(20)]
    for version in (1, 2):
        manifest = {
            "clusters": [{"name": "default", "services": names}],
            "services": [{"name": name, "task_name": "web", "task_version": version} for name in names],
            "task_definitions": [
                {
                    "name": "web",
                    "version": version,
                    "containers": [{"name": "w", "type": "bash", "executor": {"start": "x"}}],
                }
            ],
        }
        (tmp_path / "all.json").write_text(json.dumps(manifest))
        assert sked("apply", "-f", str(tmp_path / "all.json")).code == 0
    entries = store.read("").entries
    for name in names:
        assert entries[keys.rollout(name)].revision == entries[keys.service(name)].revision
    assert sum(one.what == "rollout.started" for one in events(store)) == len(names)


def test_status_shows_how_far_it_is_and_what_it_waits_for(sked, store, web, tasks, put) -> None:
    web(replace(UNDER_WAY, waited=100.0))
    tasks(1, 2)
    blocked = ClusterStatus(desired=3, issued=3, blocked="no room: max is 3")
    put(keys.service_status("web"), ServiceStatus(scheduler="default", clusters={"default": blocked}))
    ran = sked("rollout", "status", "web")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "web: roll-out 8 began 2026-11-29T16:20:05Z by al@web-1: sked apply",
        "web: roll-out 8, version 2 -> 3, running",
        "default/web: 1 of 3 tasks of version 3 healthy, 2 of version 2 left",
        "default/web: no room: max is 3",
        "web: no progress for 100 s as last noted; it fails after 600 s, 500 s are left",
    ]


def test_status_of_a_failed_one_shows_check_and_log_what_was_done_and_what_can_be(sked, web, tasks, put) -> None:
    reason = "default-web-3-1 on node-1.local: web: exit 2\n| no such file"
    web(replace(UNDER_WAY, state="failed", reason=reason))
    tasks(2, 2)
    put(keys.failure("default-web-3-0"), FAILURE)
    put(keys.failure("default-web-3-1"), replace(FAILURE, reason="web: exit 2"))
    put(keys.failure("default-web-2-0"), FAILURE)
    ran = sked("rollout", "status", "web")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[1:5] == [
        "web: roll-out 8, version 2 -> 3, failed: default-web-3-1 on node-1.local: web: exit 2",
        "default/web: 2 of 3 tasks of version 3 healthy, 2 of version 2 left",
        "| no such file",
        "default-web-3-0 on node-1.local: web: exit 1 (3 starts)",
    ]
    assert lines[5:7] == ["check: connection refused", "| line 10"]
    assert (len(lines), lines[-1]) == (26, "| line 29")
    assert ran.err.splitlines() == [
        "sked: roll-out 8 of web has failed",
        "  go back:  sked rollout undo web",
        "  go on:    sked rollout resume web",
    ]


def test_status_without_one_under_way_shows_the_last_and_how_many_are_healthy(sked, web, tasks) -> None:
    web(
        replace(UNDER_WAY, number=9, result="succeeded", ended="2026-11-29T16:30:00Z"),
        replace(UNDER_WAY, result="superseded"),
    )
    tasks(3, 0)
    ran = sked("rollout", "status", "web")
    assert ran.code == 0
    assert ran.out.splitlines()[1:] == [
        "web: roll-out 9, version 2 -> 3, succeeded",
        "default/web: 3 of 3 tasks of version 3 healthy",
    ]


def test_status_of_a_service_that_never_changed(sked, web, tasks) -> None:
    web()
    for more in ([], ["-w"]):
        ran = sked("rollout", "status", "web", *more)
        assert (ran.code, ran.out.splitlines()[0]) == (0, "web: no roll-out yet")


def test_status_as_json_has_the_object_as_it_is_stored(sked, web, tasks, put) -> None:
    web()
    put(keys.rollout("web"), json.loads(encode(UNDER_WAY)) | {"ticket": "OPS-1"})
    tasks(1, 2)
    put(keys.failure("default-web-3-0"), FAILURE)
    ran = sked("rollout", "status", "web", "-o", "json")
    found = json.loads(ran.out)
    assert (ran.code, found["kind"]) == (0, "RolloutStatus")
    (item,) = found["items"]
    assert (item["rollout"]["ticket"], item["rollout"]["number"]) == ("OPS-1", 8)
    assert item["clusters"] == [
        {
            "cluster": "default",
            "desired": 3,
            "healthy": 1,
            "others": [{"task_name": "web", "task_version": 2, "tasks": 2}],
            "rejected": 0,
            "misplaced": 0,
            "stopping": 0,
            "why": "",
        }
    ]
    assert [(one["task"], one["attempts"]) for one in item["failures"]] == [("default-web-3-0", 3)]
    put(keys.rollout("web"), replace(UNDER_WAY, state="failed"))
    assert sked("rollout", "status", "web", "-o", "json").code == 1


@pytest.fixture
def meanwhile(store, monkeypatch) -> Callable[..., None]:
    """``meanwhile(*steps)``: each time that a command has shown how things are, the next step's ops are committed."""
    show = progress.Shown.show

    def arrange(*steps) -> None:
        left = list(steps)

        def shown(self, lines) -> None:
            show(self, lines)
            if left:
                store.commit(left.pop(0))

        monkeypatch.setattr(progress.Shown, "show", shown)

    return arrange


def ended(rollout: Rollout, result: str, **more) -> list:
    value = replace(rollout, result=result, ended="2026-11-29T16:30:00Z", **more)
    return [Delete(keys.rollout("web")), Put(keys.ended_rollout("web", rollout.number), encode(value))]


def test_watching_ends_when_it_has_succeeded(sked, web, tasks, meanwhile) -> None:
    web(UNDER_WAY)
    tasks(3, 1)
    meanwhile([Delete(keys.task("default-web-2-0")), Delete("state/hosts/node-1.local/default-web-2-0"),
                          marker("web", "s1")], ended(UNDER_WAY, "succeeded"))  # fmt: skip
    ran = sked("rollout", "status", "web", "-w")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[:3] == [
        "web: roll-out 8 began 2026-11-29T16:20:05Z by al@web-1: sked apply",
        "web: roll-out 8, version 2 -> 3, running",
        "default/web: 3 of 3 tasks of version 3 healthy, 1 of version 2 left",
    ]
    assert sorted(lines[3:]) == [
        "default/web: 3 of 3 tasks of version 3 healthy",
        "web: roll-out 8, version 2 -> 3, succeeded",
    ]


def test_watching_asks_the_store_nothing_while_nothing_changes(sked, store, web, monkeypatch) -> None:
    web(UNDER_WAY)
    kind, asked = type(store), []
    read = kind.read
    monkeypatch.setattr(kind, "read", lambda self, prefix: (asked.append(prefix), read(self, prefix))[1])
    assert sked("rollout", "status", "web", "-w", "--timeout", "3s").code == 9
    assert sum(prefix.startswith(keys.STATE) for prefix in asked) <= 2  # by a look each half second there were six


def test_watching_goes_on_through_an_outage_of_the_store(sked, store, web, monkeypatch, meanwhile) -> None:
    web(UNDER_WAY)
    kind, failures, seen = type(store), [], threading.Event()
    read = kind.read

    def unsteady(self, prefix):
        if seen.is_set() and len(failures) < 3:
            failures.append(prefix)
            raise Unavailable("the store is away")
        if prefix.startswith(keys.STATE):
            seen.set()
        return read(self, prefix)

    monkeypatch.setattr(kind, "read", unsteady)
    meanwhile(ended(UNDER_WAY, "succeeded"))
    ran = sked("rollout", "status", "web", "-w")
    assert (ran.code, len(failures)) == (0, 3)


def test_watching_ends_with_1_when_it_is_rolled_back_and_shows_what_was_seen(
    sked, store, web, tasks, put, meanwhile
) -> None:
    web(UNDER_WAY)
    tasks(1, 2)
    put(keys.failure("default-web-3-0"), FAILURE)
    back = replace(UNDER_WAY, number=9, kind="rollback", task_version=2, from_version=3)
    service = stored(store, "config/services/web") | {"task_version": 2}
    meanwhile([
        Put(keys.rollout("web"), encode(back)),
        Put(keys.service("web"), encode(service)),
        Delete(keys.failure("default-web-3-0")),
        *ended(UNDER_WAY, "rolled_back", reason="no progress for 600 s")[1:],
    ])  # fmt: skip
    ran = sked("rollout", "status", "web", "-w")
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert lines[:3] == [
        "sked: web: roll-out 8, version 2 -> 3, rolled back: no progress for 600 s",
        "  default-web-3-0 on node-1.local: web: exit 1 (3 starts)",
        "  check: connection refused",
    ]
    assert lines[-2:] == [
        "  | line 29",
        "  then: rolled back to version 2; follow:  sked rollout status web -w",
    ]
    # Whoever watches the rollback learns that what was declared did not come true.
    meanwhile(ended(back, "succeeded"))
    ran = sked("rollout", "status", "web", "-w")
    assert ran.code == 1
    assert ran.err.splitlines()[:2] == [
        "sked: web: version 3 was rolled back to version 2",
        "  web: roll-out 8, version 2 -> 3, rolled back: no progress for 600 s",
    ]


@pytest.mark.parametrize("result", ["superseded", "withdrawn"])
def test_watching_ends_with_5_when_somebody_else_ended_it(sked, web, result, meanwhile) -> None:
    web(UNDER_WAY)
    meanwhile(ended(UNDER_WAY, result))
    ran = sked("rollout", "status", "web", "-w")
    assert ran.code == 5
    assert ran.err.splitlines()[0] == f"sked: web: roll-out 8, version 2 -> 3, {result}"


def test_watching_ends_with_9_when_the_time_is_up_and_says_how_to_attach_again(sked, web) -> None:
    web(UNDER_WAY)
    ran = sked("rollout", "status", "web", "-w", "--timeout", "100ms")
    assert ran.code == 9
    assert ran.err.splitlines()[-1] == "  attach again:  sked rollout status web -w"


def test_watching_that_is_interrupted_ends_with_130_and_says_how_to_attach_again(sked, web, monkeypatch) -> None:
    web(UNDER_WAY)

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sked_core.surface.progress.time.sleep", interrupted)
    ran = sked("rollout", "status", "web", "-w")
    assert ran.code == 130
    assert ran.err.splitlines() == [
        "sked: interrupted; the roll-out goes on",
        "  attach again:  sked rollout status web -w",
    ]


@pytest.mark.usefixtures("attended")
def test_apply_wait_ends_with_1_when_its_roll_out_fails(store, apply, task, issue, put, monkeypatch) -> None:
    apply(1)
    issue(task(service="web", version=2), healthy=False)
    put(keys.failure("default-web-2-0"), FAILURE)

    show = progress.Shown.show

    def shown_and_failed(self, lines) -> None:
        show(self, lines)
        put(keys.rollout("web"), stored(store, "scheduling/rollouts/web") | {"state": "failed", "reason": "it is bad"})

    monkeypatch.setattr(progress.Shown, "show", shown_and_failed)
    ran = apply(2, "--wait", "--timeout", "120s")
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert lines[0] == "web: roll-out 1, version 1 -> 2, running"
    at = lines.index("sked: web: roll-out 1, version 1 -> 2, failed: it is bad")
    assert lines[at + 1 : at + 4] == [
        "  default-web-2-0 on node-1.local: web: exit 1 (3 starts)",
        "  check: connection refused",
        "  | line 10",
    ]
    assert lines[-4:] == [
        "  it stands where it was:",
        "    default/web: 0 of 2 tasks of version 2 healthy",
        "  go back:  sked rollout undo web",
        "  go on:    sked rollout resume web",
    ]


def test_apply_wait_needs_the_roll_out_to_have_ended_not_only_healthy_tasks(
    store, apply, task, issue, meanwhile
) -> None:
    apply(1)
    issue(task(service="web", version=2), task(service="web", version=2, instance=1), healthy=True)
    ran = apply(2, "--wait", "--timeout", "1s")
    assert ran.code == 9
    assert ran.err.splitlines()[-1] == "  attach again:  sked rollout status web -w"
    rollout = decode(store.read("scheduling/rollouts/web").entries["scheduling/rollouts/web"].value, Rollout)
    meanwhile(ended(rollout, "succeeded"))
    assert apply(2, "--wait", "--timeout", "120s").code == 0


@pytest.mark.usefixtures("attended")
def test_apply_wait_waits_for_tasks_to_leave_hosts_that_their_cluster_does_not_list(
    sked, declare, task, issue, tmp_path
) -> None:
    declare(TaskDefinition(name="web", version=1))
    declare(Service(name="web", task_name="web", task_version=1, desired=1, min=1, max=2))
    issue(task(service="web", version=1), healthy=True)
    path = tmp_path / "cluster.yml"
    path.write_text("clusters: [{name: default, services: [web], hosts: [node-2.local]}]")
    # A host without any word of an agent is a person's business: schedulers leave what is there.
    assert sked("apply", "-f", str(path), "--wait", "--timeout", "60s").code == 0
    declare(Host(name="node-1.local"))
    ran = sked("apply", "-f", str(path), "--wait", "--timeout", "500ms")
    assert ran.code == 9
    told = "default/web: 1 of 1 task of version 1 healthy, 1 on hosts that the cluster does not list"
    assert ran.err.splitlines()[0] == told


@pytest.mark.usefixtures("attended")
def test_what_checks_say_of_tasks_that_have_not_failed_yet_is_shown_when_the_time_is_up(
    sked, apply, task, issue, put
) -> None:
    bad = task(service="web", version=1)
    issue(bad, healthy=False)
    put(keys.health(bad.host, bad.id), {"healthy": False, "output": "404", "cluster": "default", "service": "web"})
    ran = apply(1, "--wait", "--timeout", "500ms", desired=1)
    assert ran.code == 9
    assert ran.err.splitlines()[2:4] == ["  default-web-1-0 on node-1.local: not healthy", "  check: 404"]
    put(keys.rollout("web"), replace(UNDER_WAY, task_version=1))
    assert sked("rollout", "status", "web").out.splitlines()[-1] == "check: 404"


@pytest.mark.parametrize("done", ["pause", "resume", "promote"])
def test_an_object_that_nobody_can_read_is_named_with_the_remedy(sked, store, web, done) -> None:
    web(update=UpdatePolicy(canaries=1))
    store.commit([Put(keys.rollout("web"), b"{oops")])
    ran = sked("rollout", done, "web")
    assert ran.code == 1
    assert ran.err.startswith("sked: scheduling/rollouts/web can't be read: ")
    assert ran.err.splitlines()[-1] == "  repair the key, or remove it: a new roll-out begins"


def test_pause_resume_and_promote_edit_the_object_and_keep_what_others_wrote(sked, store, web, put) -> None:
    web(update=UpdatePolicy(canaries=1))
    put(keys.rollout("web"), json.loads(encode(replace(UNDER_WAY, waited=7.5))) | {"ticket": "OPS-1"})
    before = stored(store, "scheduling/rollouts/web")
    assert sked("rollout", "pause", "web", "--why", "lunch").out == "rollout/web/8 paused\n"
    paused = stored(store, "scheduling/rollouts/web")
    assert paused == before | {"state": "paused", "reason": paused["reason"]}
    assert paused["reason"].endswith(": lunch")
    assert sked("rollout", "pause", "web").out == "rollout/web/8 unchanged\n"
    assert sked("rollout", "promote", "web").code == 5
    assert sked("rollout", "resume", "web").out == "rollout/web/8 resumed\n"
    assert stored(store, "scheduling/rollouts/web") == before | {"waited": 0.0}
    assert sked("rollout", "promote", "web").out == "rollout/web/8 promoted\n"
    assert sked("rollout", "promote", "web").out == "rollout/web/8 unchanged\n"
    assert stored(store, "scheduling/rollouts/web") == before | {"waited": 0.0, "promoted": True}
    assert [(one.what, one.why) for one in events(store)] == [
        ("rollout.paused", "lunch"),
        ("rollout.resumed", ""),
        ("rollout.promoted", ""),
    ]


def test_resume_forgets_what_would_make_it_fail_again_at_once(sked, store, web, put, issue, task) -> None:
    web(replace(UNDER_WAY, state="failed", reason="it is bad"))
    given_up = {"rejected": True, "reject_reason": "gave up after 10 starts"}
    issue(task(service="web", version=3), task(service="web", version=3, instance=1, **given_up))
    issue(task(service="web", version=2, **given_up))
    former = stored(store, "state/tasks/default-web-2-0")
    for name in ("default-web-3-0", "default-web-3-1", "default-web-2-0", "default-web-9-0"):
        put(keys.failure(name), FAILURE)
    assert sked("rollout", "resume", "web").code == 0
    assert set(store.read(keys.FAILURES).entries) == {"failures/default-web-2-0", "failures/default-web-9-0"}
    again = stored(store, "state/tasks/default-web-3-1")
    assert again["reject_reason"] == "before roll-out 8 was resumed: gave up after 10 starts"
    assert stored(store, "state/hosts/node-1.local/default-web-3-1") == again
    assert stored(store, "state/tasks/default-web-2-0") == former
    assert "scheduling/changed/web" in store.read(keys.CHANGED).entries


def test_status_of_a_rollback_says_what_it_came_of(sked, web, tasks) -> None:
    failed = replace(UNDER_WAY, result="rolled_back", reason="web: exit 1\n| no such file")
    back = replace(UNDER_WAY, number=9, kind="rollback", task_version=2, from_version=3, by="scheduler a", why="")
    web(failed, back, version=2)
    tasks(1, 2)
    ran = sked("rollout", "status", "web")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "web: roll-out 9 began 2026-11-29T16:20:05Z by scheduler a",
        "web: roll-out 8, version 2 -> 3, rolled back: web: exit 1",
        "| no such file",
        "web: roll-out 9 (rollback), version 3 -> 2, running",
        "default/web: 2 of 3 tasks of version 2 healthy, 1 of version 3 left",
    ]


def test_what_makes_no_sense_is_refused_with_5_and_what_is_not_there_with_4(sked, web) -> None:
    web()
    for command in ("pause", "resume", "promote"):
        ran = sked("rollout", command, "web")
        assert (ran.code, ran.err.splitlines()[0]) == (4, "sked: no roll-out of web is under way")
        ran = sked("rollout", command, "wbe")
        assert (ran.code, ran.err) == (4, "sked: no service wbe\n  did you mean web?\n")
    for command in ("status", "history", "undo"):
        assert sked("rollout", command, "wbe").code == 4
    web(replace(UNDER_WAY, state="failed", reason="it is bad"))
    ran = sked("rollout", "pause", "web")
    assert (ran.code, ran.err.splitlines()[0]) == (5, "sked: roll-out 8 of web has failed and stands still")
    ran = sked("rollout", "promote", "web")
    assert (ran.code, ran.err.splitlines()[0]) == (5, "sked: roll-out 8 of web has no canaries")
    assert sked("rollout", "resume", "web").code == 0


def test_history_lists_what_ended_and_what_is_under_way(sked, web) -> None:
    web(
        replace(UNDER_WAY, number=10, kind="undo", task_version=2, from_version=3),
        replace(UNDER_WAY, result="superseded", ended="2026-11-29T16:30:00Z"),
        replace(UNDER_WAY, number=9, task_version=3, from_name="", result="rolled_back", reason="no good\n| a\n| b"),
    )
    ran = sked("rollout", "history", "web")
    rows = [[cell for cell in line.split("     ") if cell.strip()] for line in ran.out.splitlines()]
    columns = ["number", "kind", "from", "to", "result", "by", "at", "ended", "why", "reason"]
    assert [cell.strip() for cell in rows[0]] == columns
    assert [[cell.strip() for cell in row] for row in rows[2:]] == [
        ["8", "update", "web/2", "web/3", "superseded", "al@web-1", BY["at"], "2026-11-29T16:30:00Z", "sked apply"],
        ["9", "update", "web/3", "rolled_back", "al@web-1", BY["at"], "sked apply", "no good"],
        ["10", "undo", "web/3", "web/2", "running", "al@web-1", BY["at"], "sked apply"],
    ]
    found = json.loads(sked("rollout", "history", "web", "-o", "json").out)
    assert [(one["number"], one["reason"]) for one in found["items"]] == [(8, ""), (9, "no good\n| a\n| b"), (10, "")]
    assert found["kind"] == "RolloutList"


def test_history_of_a_deleted_service_can_still_be_read(sked, put) -> None:
    put(keys.ended_rollout("gone", 1), replace(UNDER_WAY, number=1, result="withdrawn"))
    assert "withdrawn" in sked("rollout", "history", "gone").out


def test_undo_goes_back_to_what_the_one_under_way_replaces(sked, store, web, put) -> None:
    web(replace(UNDER_WAY, state="failed", reason="it is bad"))
    put(keys.service("web"), stored(store, "config/services/web") | {"owner": "me"})
    ran = sked("rollout", "undo", "web", "--why", "it is bad")
    assert (ran.code, ran.out) == (0, "service/web undone (began roll-out 9: version 3 -> 2)\n")
    service, begun = stored(store, "config/services/web"), stored(store, "scheduling/rollouts/web")
    assert (service["task_version"], service["owner"]) == (2, "me")
    assert (begun["kind"], begun["number"], begun["why"]) == ("undo", 9, "it is bad")
    former = stored(store, "rollouts/web/8")
    assert (former["result"], former["reason"]) == ("superseded", "it is bad")
    # Typed once more, it does not bring the bad version back.
    ran = sked("rollout", "undo", "web")
    assert (ran.code, ran.err.splitlines()[0]) == (5, "sked: roll-out 9 of web went back to version 2 already")
    assert stored(store, "config/services/web") == service


@pytest.mark.parametrize(("last", "target"), [(UNDER_WAY, 2), (replace(UNDER_WAY, task_version=1, from_version=2), 1)])
def test_undo_goes_back_to_what_was_there_before_the_last_change(sked, store, web, last, target) -> None:
    web(replace(last, result="succeeded"))
    assert sked("rollout", "undo", "web").code == 0
    assert stored(store, "config/services/web")["task_version"] == target


def test_undo_to_any_version_that_is_stored_and_no_other(sked, store, web, declare) -> None:
    web()
    declare(TaskDefinition(name="web", version=10))
    ran = sked("rollout", "undo", "web")
    assert ran.code == 4
    assert "versions of web that are stored: 1, 2, 3, 10" in ran.err
    ran = sked("rollout", "undo", "web", "--to", "7")
    assert (ran.code, ran.err.splitlines()[0]) == (4, "sked: no task definition web/7")
    assert "1, 2, 3, 10" in ran.err
    ran = sked("rollout", "undo", "web", "--to", "3")
    assert (ran.code, ran.out) == (0, "service/web unchanged: version 3 is what is declared\n")
    assert store.read(keys.ROLLOUTS).entries == {}
    assert sked("rollout", "undo", "web", "--to", "1").code == 0
    assert stored(store, "scheduling/rollouts/web")["from_version"] == 3
    assert sked("rollout", "undo", "web", "--to", "x").code == 2


def test_undo_goes_back_to_another_task_definition_too(sked, store, web, declare) -> None:
    declare(TaskDefinition(name="old", version=5))
    web(replace(UNDER_WAY, from_name="old", from_version=5))
    ran = sked("rollout", "undo", "web")
    assert ran.out == "service/web undone (began roll-out 9: web/3 -> old/5)\n"
    service = stored(store, "config/services/web")
    assert (service["task_name"], service["task_version"]) == ("old", 5)


def test_undo_wait_returns_when_it_is_done(sked, store, web, tasks) -> None:
    web(UNDER_WAY)
    tasks(0, 3)

    def finish() -> None:
        while "rollouts/web/8" not in store.read(keys.ROLLOUT_HISTORY).entries:
            time.sleep(0.05)
        begun = decode(store.read("scheduling/rollouts/web").entries["scheduling/rollouts/web"].value, Rollout)
        store.commit(ended(begun, "succeeded"))

    other = threading.Thread(target=finish)
    other.start()
    ran = sked("rollout", "undo", "web", "--wait")
    other.join()
    assert ran.code == 0
    assert "web: roll-out 9 (undo), version 3 -> 2, succeeded" in ran.err.splitlines()
