"""Commands that write: what they write, what they refuse, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import threading
import time

import pytest
from msgspec.structs import replace

from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Cluster, Failure, Presence, Rollout, Service, TaskDefinition
from sked_core.surface import cli


def stored(store, key: str) -> dict:
    return decode(store.read(key).entries[key].value, dict)


def content(store) -> dict[str, bytes]:
    return {
        key: entry.value for prefix in ("config/", "hosts/marks/") for key, entry in store.read(prefix).entries.items()
    }


def test_apply_writes_and_then_is_unchanged(sked, store, manifest) -> None:
    first = sked("apply", "-f", str(manifest))
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == ["task_definition/web/1 created", "service/web created", "cluster/default created"]
    before = content(store)
    again = sked("apply", "-f", str(manifest))
    assert again.code == 0
    assert {line.split()[1] for line in again.out.splitlines()} == {"unchanged"}
    assert content(store) == before
    assert stored(store, "config/services/web")["max"] == 3


def test_what_a_manifest_leaves_out_of_a_service_leaves_the_store(sked, store, manifest) -> None:
    plain = manifest.read_text()
    manifest.write_text(plain.replace("desired: 2", "desired: 2, update: {on_failure: rollback, canaries: 1}"))
    assert sked("apply", "-f", str(manifest)).code == 0
    assert stored(store, "config/services/web")["update"] == {
        "on_failure": "rollback", "healthy_for": "", "progress_deadline": "10m", "canaries": 1, "promote_after": "",
    }  # fmt: skip
    manifest.write_text(plain)
    ran = sked("apply", "-f", str(manifest))
    assert ran.out.splitlines()[1] == "service/web configured"
    assert "update" not in stored(store, "config/services/web")
    assert store.read(keys.ROLLOUTS).entries == {}


def test_of_a_scheduler_that_is_not_installed_apply_warns_unless_a_process_places_by_it(sked, store, manifest) -> None:
    manifest.write_text(manifest.read_text().replace("desired: 2", "desired: 2, scheduler: mine"))
    ran = sked("apply", "-f", str(manifest))
    assert ran.code == 0 and 'no scheduler "mine" is installed here; installed are: ' in ran.err
    assert ran.err.endswith("; its tasks wait until a process runs that places by it\n")
    store.commit([Put(keys.scheduler("outside-1"), encode(Presence(["mine"])))])
    ran = sked("apply", "-f", str(manifest))
    assert (ran.code, ran.err) == (0, "")


def test_apply_takes_standard_input_folders_and_several_files(sked, store, manifest, tmp_path) -> None:
    assert sked("apply", "-f", "-", stdin=manifest.read_text()).code == 0
    more = tmp_path / "more"
    more.mkdir()
    (more / "a.yml").write_text("clusters: [{name: a, services: [web]}]")
    (more / "b.json").write_text('{"clusters": [{"name": "b", "services": ["web"]}]}')
    ran = sked("apply", "-f", str(manifest), "-f", str(more))
    assert ran.code == 0
    assert set(store.read(keys.CLUSTERS).entries) == {f"config/clusters/{name}" for name in ("a", "b", "default")}


def test_a_dry_run_writes_nothing(sked, store, manifest) -> None:
    ran = sked("apply", "-f", str(manifest), "--dry-run")
    assert (ran.code, ran.out.splitlines()[1]) == (0, "service/web created (dry run)")
    assert content(store) == {}


@pytest.mark.parametrize("command", ["apply", "validate"])
def test_every_mistake_is_reported_with_its_place_and_nothing_is_written(sked, store, tmp_path, command) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(
        "services:\n"
        "  - {name: web, task_name: web, task_version: 1, desired: four, mni: 1}\n"
        "task_definitions:\n"
        "  - {name: web, version: 1, containers: [{name: w, type: bash, executor: {start: x}}]}\n"
        "clusters:\n"
        "  - {name: 'a/b', services: [web]}\n"
    )
    ran = sked(command, "-f", str(path))
    assert (ran.code, ran.out) == (3, "")
    lines = ran.err.splitlines()
    column = path.read_text().splitlines()[1].index("four") + 1
    assert f'{path}:2:{column}: services[0].desired: expected a whole number, got "four"' in lines
    assert any(line.startswith(f"{path}:2:") and 'did you mean "min"?' in line for line in lines)
    assert lines[-1] == "3 errors in 1 file"
    assert content(store) == {}


def test_validate_asks_no_store(sked, manifest, monkeypatch) -> None:
    monkeypatch.setenv("SKED_BACKEND", "consul://127.0.0.1:1")
    ran = sked("validate", "-f", str(manifest))
    assert (ran.code, ran.err) == (0, "valid: 3 objects\n")


def test_a_missing_file_is_an_invalid_manifest(sked, store, tmp_path) -> None:
    ran = sked("apply", "-f", str(tmp_path / "none.yml"))
    assert ran.code == 3
    assert "no such file" in ran.err


def test_another_content_under_an_applied_version_is_refused(sked, store, manifest) -> None:
    assert sked("apply", "-f", str(manifest)).code == 0
    before = content(store)
    manifest.write_text(manifest.read_text().replace("sleep 1000", "sleep 2000"))
    ran = sked("apply", "-f", str(manifest))
    assert ran.code == 3
    assert "version" in ran.err
    assert content(store) == before


@pytest.mark.usefixtures("attended")
def test_apply_wait_returns_when_all_was_healthy_for_long_enough(sked, store, manifest, issue, task) -> None:
    written: list[float] = []

    def others() -> None:
        written.append(time.monotonic())
        issue(task(service="web", version=1), task(service="web", version=1, instance=1), healthy=True)

    manifest.write_text(manifest.read_text().replace("desired: 2", "desired: 2, update: {healthy_for: 2s}"))
    timer = threading.Timer(0.5, others)
    timer.start()
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "60s")
    ended = time.monotonic()
    timer.join()
    assert ran.code == 0
    assert ran.err.splitlines()[-2:] == ["default/web: 2 of 2 tasks of version 1 healthy", "all tasks are healthy"]
    assert ended - written[0] >= 2


def test_apply_wait_is_not_done_while_a_task_is_known_to_fail(sked, store, manifest, issue, task) -> None:
    tasks = task(service="web", version=1), task(service="web", version=1, instance=1)
    manifest.write_text(manifest.read_text().replace("desired: 2", "desired: 2, update: {healthy_for: 1ms}"))
    failure = Failure(host="node-1.local", attempts=2, reason="web: exit 1", log=["no such file: web.conf"])
    issue(*tasks, healthy=True)
    store.commit([Put(keys.failure(tasks[0].id), encode(failure))])
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "200ms")
    assert ran.code == 9
    told = "default-web-1-0 on node-1.local: web: exit 1 (2 starts)"
    assert told in ran.err.splitlines()
    assert f"  {told}\n  | no such file: web.conf\n" in ran.err
    store.commit([Put(keys.failure(tasks[0].id), encode(replace(failure, host="elsewhere")))])
    assert sked("apply", "-f", str(manifest), "--wait", "--timeout", "60s").code == 0


def test_apply_wait_times_out_with_9_and_says_how_to_go_on(sked, store, manifest) -> None:
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "200ms")
    assert ran.code == 9
    assert "default/web: 0 of 2 tasks of version 1 healthy" in ran.err
    assert ran.err.splitlines()[-1] == f"  attach again:  sked apply -f {manifest} --wait"


def test_apply_wait_says_at_once_where_nobody_is_there_to_place_tasks(sked, store, manifest) -> None:
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "200ms")
    assert "no process is there that places by default; `sked run scheduler` is one" in ran.err
    store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "200ms")
    assert "places by" not in ran.err


def test_apply_wait_ends_with_8_where_tasks_have_no_place(sked, store, manifest) -> None:
    hosts = {"h-1": ["memory: free 1 MB < 2 MB"]}
    status = {"scheduler": "default", "clusters": {"default": {"waiting": 2, "hosts": hosts}}}
    store.commit([Put(keys.service_status("web"), encode(status))])
    ran = sked("apply", "-f", str(manifest), "--wait", "--timeout", "200ms")
    assert ran.code == 8
    assert "h-1: memory: free 1 MB < 2 MB" in ran.err


@pytest.mark.parametrize(("typed", "count"), [("9", 9), ("10", 10), ("010", 10), ("0", 0), ("08", 8)])
def test_scale_counts_in_decimal_and_bounds_follow(sked, store, manifest, typed, count) -> None:
    sked("apply", "-f", str(manifest))
    assert sked("scale", "web", typed).code == 0
    service = stored(store, "config/services/web")
    assert service["desired"] == service["min"] == count
    assert service["max"] == count + max(1, -(-count // 4))


@pytest.mark.parametrize("typed", ["x", "1.5", "0x10", "1e3", "1_0", "", " 9", "٣", "9" * 30, "10000000"])
def test_scale_refuses_what_is_no_count(sked, store, manifest, typed) -> None:
    sked("apply", "-f", str(manifest))
    before = content(store)
    assert sked("scale", "web", typed).code == 2
    assert sked("scale", "web", "-1").code == 2
    assert content(store) == before


def test_scale_keeps_unknown_fields_and_refuses_to_leave_given_bounds(sked, store) -> None:
    service = Service(name="web", task_name="web", task_version=1, desired=2, min=1, max=4)
    fields = json.loads(encode(service)) | {"owner": "me"}
    store.commit([Put(keys.service("web"), encode(fields))])
    assert sked("scale", "web", "4").code == 0
    assert stored(store, "config/services/web") == fields | {"desired": 4}
    ran = sked("scale", "web", "5")
    assert ran.code == 2
    assert "max" in ran.err
    assert stored(store, "config/services/web")["desired"] == 4


def test_scale_of_a_stranger_is_not_found(sked, store, manifest) -> None:
    sked("apply", "-f", str(manifest))
    ran = sked("scale", "wbe", "3")
    assert ran.code == 4
    assert ran.err == "sked: no service wbe\n  did you mean web?\n"


@pytest.mark.parametrize(
    "command",
    [
        ("scale", "web", "5"),
        ("rollout", "undo", "web"),
        ("rollout", "promote", "web"),
        ("simulate", "--scale", "web=5"),
        ("simulate", "--scheduler", "web=binpack"),
        ("rebalance", "web"),
        ("explain", "web"),
    ],
)
def test_a_service_that_can_t_be_read_is_named_with_the_remedy_which_works(sked, store, manifest, command) -> None:
    sked("apply", "-f", str(manifest))
    for broken in (b"", b'{"name": "web", "desired": "many"}'):
        store.commit([Put(keys.service("web"), broken)])
        ran = sked(*command)
        assert ran.code == 2
        lines = ran.err.splitlines()
        assert any(line.startswith("sked: config/services/web can't be read: not a valid Service: ") for line in lines)
        assert "  repair it, or apply its manifest, which writes it anew" in lines
        assert sked("apply", "-f", str(manifest)).code == 0
        assert sked("scale", "web", "5").code == 0


def test_a_deploy_does_not_undo_a_scaling(sked, store, tmp_path, manifest) -> None:
    sked("apply", "-f", str(manifest))
    sked("scale", "web", "7")
    (tmp_path / "next.yml").write_text("services: [{name: web, task_name: web, task_version: 1}]")
    assert sked("apply", "-f", str(tmp_path / "next.yml")).code == 0
    assert stored(store, "config/services/web")["desired"] == 7


def test_delete_refuses_what_others_refer_to(sked, store, manifest) -> None:
    sked("apply", "-f", str(manifest))
    before = content(store)
    for target in ("service/web", "task_definition/web", "task_definition/web/1"):
        ran = sked("delete", target, "-y")
        assert ran.code == 5
    assert content(store) == before
    assert sked("delete", "service/web", "-y", "--cascade").code == 0
    assert stored(store, "config/clusters/default")["services"] == []
    assert sked("delete", "task_definition/web/1", "-y").code == 0
    assert sked("delete", "cluster/default", "-y").code == 0
    assert content(store) == {}


def test_delete_keeps_what_a_roll_out_under_way_may_go_back_to(sked, store, declare) -> None:
    for version in (1, 2):
        declare(TaskDefinition(name="web", version=version))
    declare(Service(name="web", task_name="web", task_version=2))
    rollout = Rollout(number=3, task_name="web", task_version=2, from_name="web", from_version=1)
    store.commit([Put(keys.rollout("web"), encode(rollout))])
    ran = sked("delete", "task_definition/web/1", "-y")
    assert (ran.code, ran.err.splitlines()) == (
        5,
        [
            "sked: task definition web/1 is what a roll-out under way may go back to: web (roll-out 3)",
            "  wait for its end:  sked rollout status web -w",
        ],
    )
    store.commit([Delete(keys.rollout("web"))])
    assert sked("delete", "task_definition/web/1", "-y").code == 0


def test_delete_takes_all_versions_or_one_and_no_namesake(sked, store, declare) -> None:
    for name, version in (("web", 1), ("web", 10), ("web", 2), ("web-1", 1)):
        declare(TaskDefinition(name=name, version=version))
    assert sked("delete", "task_definition/web/1", "-y").code == 0
    assert keys.task_definition("web", 10) in store.read(keys.CONFIG).entries
    assert sked("delete", "task_definition/web", "-y").code == 0
    assert list(store.read(keys.CONFIG).entries) == [keys.task_definition("web-1", 1)]
    declare(Cluster(name="a"), Cluster(name="ab"))
    assert sked("delete", "cluster/a", "-y").code == 0
    assert keys.cluster("ab") in store.read(keys.CONFIG).entries


@pytest.mark.parametrize(
    ("target", "code"),
    [("service/none", 4), ("cluster/none", 4), ("task_definition/none", 4), ("task_definition/web/x", 2)]
    + [(bad, 2) for bad in ("service", "service/", "pod/x", "service/../x", "cluster/A")],
)
def test_delete_of_what_is_not_there(sked, store, target, code) -> None:
    assert sked("delete", target, "-y").code == code


@pytest.mark.parametrize(
    "command",
    [
        "delete cluster/default",
        "delete service/web",
        "delete service/none",
        "stop default-web-1-0",
        "apply --prune -f X",
    ],
)
def test_off_a_terminal_nobody_is_asked(sked, store, manifest, command) -> None:
    sked("apply", "-f", str(manifest))
    before = content(store)
    ran = sked(*command.replace("X", str(manifest)).split())
    assert ran.code == 2
    assert "add -y" in ran.err
    assert content(store) == before


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_no_is_an_answer(store, manifest, monkeypatch, capsys, answer, code) -> None:
    assert cli.run(["apply", "-f", str(manifest)]) == 0
    ours, theirs = pty.openpty()
    with open(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(ours, f"{answer}\n".encode())
        assert cli.run(["delete", "cluster/default"]) == code
    os.close(ours)
    said = capsys.readouterr().err
    assert said.startswith("delete cluster/default? [y/N]: ")
    assert said.endswith("sked: nothing was done\n" if code else "deleted: cluster/default\n")
    assert (keys.cluster("default") in content(store)) is bool(code)


def test_prune_removes_services_that_no_cluster_lists_any_more(sked, store, declare, manifest) -> None:
    old, other = (
        Service(name="old", task_name="old", task_version=0),
        Service(name="other", task_name="other", task_version=0),
    )
    declare(Cluster(name="default", services=["web", "old"]), Cluster(name="prod", services=["other"]), old, other)
    declare(TaskDefinition(name="old", version=0))
    before = content(store)
    dry = sked("apply", "-f", str(manifest), "--prune", "--dry-run")
    assert (dry.code, dry.out.splitlines()[-1]) == (0, "service/old deleted (dry run)") and content(store) == before
    ran = sked("apply", "-f", str(manifest), "--prune", "-y", "--why", "a clean-up")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "service/old deleted")
    assert {key for key in content(store) if key.startswith(keys.SERVICES)} == {
        "config/services/" + n for n in ("other", "web")
    }
    assert keys.task_definition("old", 0) in content(store)
    told = [one for one in json.loads(sked("events", "-o", "json").out)["items"] if one["what"] == "service.deleted"]
    assert [(one["subject"], one["why"]) for one in told] == [("service/old", "a clean-up")]
    assert sked("apply", "-f", str(manifest), "--prune", "-y").out.count("unchanged") == 3
    refused = sked("apply", "-f", str(manifest), "--prune", "-y", "--if-revision", "1")
    assert refused.code == 2 and "says nothing of --prune" in refused.err


def test_prune_keeps_what_is_declared_though_no_cluster_lists_it(sked, store, manifest) -> None:
    manifest.write_text(manifest.read_text().replace("services: [web]", "services: []"))
    for _ in range(2):
        assert sked("apply", "-f", str(manifest), "--prune", "-y").code == 0
        assert keys.service("web") in content(store)


def test_nothing_is_pruned_where_it_is_not_known_what_a_cluster_lists(sked, store, declare, manifest) -> None:
    declare(Service(name="old", task_name="old", task_version=0))
    store.commit([Put(keys.cluster("prod"), b"{")])
    before = content(store)
    ran = sked("apply", "-f", str(manifest), "--prune", "-y")
    assert (ran.code, content(store)) == (2, before) and keys.cluster("prod") in ran.err


def test_a_task_reports_itself(sked, store, monkeypatch) -> None:
    assert sked("report").code == 2
    monkeypatch.setenv("SKED_TASK_ID", "default-web-1-0")
    monkeypatch.setenv("SKED_HOST", "h-1")
    assert sked("report").code == 0
    assert stored(store, "reports/h-1/default-web-1-0") == {"healthy": True, "output": ""}
    assert sked("report", "--unhealthy", "--message", "disk full", "--host", "h-2").code == 0
    assert stored(store, "reports/h-2/default-web-1-0") == {"healthy": False, "output": "disk full"}
