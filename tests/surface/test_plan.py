"""``sked plan`` and ``sked apply --if-revision``: what is said is what happens, or nothing does."""

from __future__ import annotations

import json

import pytest

from sked_core.client.acting import declaring
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Presence, Service
from sked_core.testing.builders import a_definition, a_service

PAIR = """\
services:
  - {name: web, task_name: web, task_version: 1}
"""


def content(store) -> dict[str, tuple[bytes, int]]:
    return {key: (entry.value, entry.revision) for key, entry in store.read("").entries.items()}


def revision(ran) -> str:
    return next(line.removeprefix("revision ") for line in ran.out.splitlines() if line.startswith("revision "))


def test_it_says_what_would_be_written_and_where_tasks_would_go_and_writes_nothing(sked, store, up, manifest) -> None:
    up(h1=1000, h2=1000)
    before = content(store)
    ran = sked("plan", "-f", str(manifest))
    assert ran.code == 0 and content(store) == before
    lines = ran.out.splitlines()
    assert lines[0] == "task_definition/web/1 created"
    assert '  containers[0].executor.start: "sleep 1000"' in lines and "  desired: 2" in lines
    assert "service/web created" in lines and '  services[0]: "web"' in lines
    assert [line.split() for line in lines if line.startswith("default-web-")] == [
        ["default-web-1-0", "h1", "new"], ["default-web-1-1", "h2", "new"],
    ]  # fmt: skip
    assert "default/web: 2 of 2 tasks placed: 2 new" in lines
    assert lines[-1].startswith(f"apply exactly this:  sked apply -f {manifest} --if-revision ")


def test_it_says_where_nobody_is_there_to_do_it(sked, store, up, manifest) -> None:
    up(h1=1000)
    nobody = "note: web: no process is there that places by default; `sked run scheduler` is one\n"
    assert sked("plan", "-f", str(manifest)).err == nobody
    store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])
    assert sked("plan", "-f", str(manifest)).err == ""


def test_a_count_that_the_manifest_leaves_open_is_kept(sked, store, up, running) -> None:
    up(h1=1000)
    running("web", *["h1"] * 19)
    ran = sked("plan", "-f", "-", stdin=PAIR.replace("}", ", scheduler: binpack}"))
    assert "  desired: kept at 19, the manifest says nothing" in ran.out.splitlines()
    assert '  scheduler: "default" -> "binpack"' in ran.out.splitlines()
    assert "of-web/web: 19 of 19 tasks placed: 19 stay" in ran.out


def test_a_new_version_is_compared_with_the_one_that_runs(sked, store, up, running) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", "h2")
    definition = encode(a_definition("web", 2, memory=64, grace_period="5s")).decode()
    text = PAIR.replace("task_version: 1", "task_version: 2") + f"task_definitions: [{definition}]"
    lines = sked("plan", "-f", "-", stdin=text).out.splitlines()
    assert lines[:3] == [
        "task_definition/web/2 created (compared with version 1)", "  memory: 0 -> 64", "  grace_period: 1m -> 5s",
    ]  # fmt: skip
    assert "  begins roll-out 1: version 1 -> 2" in lines
    moves = [line.split(maxsplit=4) for line in lines if line.startswith("of-web-web-2-")]
    assert [(task, former, why.strip()) for task, former, _, _, why in moves] == [
        (f"of-web-web-2-{number}", f"of-web-web-1-{number}", "version 2 replaces it") for number in (0, 1)
    ]
    assert any(line.endswith("2 replaced; never fewer than 2 healthy on the way") for line in lines)


def test_what_does_not_fit_is_said_host_by_host_and_in_the_exit_code(sked, store, up, manifest) -> None:
    manifest.write_text(manifest.read_text().replace("version: 1, containers", "version: 1, memory: 600, containers"))
    up(h1=1000, h2=500)
    ran = sked("plan", "-f", str(manifest), "--exit-code")
    assert ran.code == 8
    assert "default/web: 1 of 2 tasks placed: 1 new; 1 without a place" in ran.out
    assert "  h1: memory: free 400 MB < 600 MB\n  h2: memory: free 500 MB < 600 MB\n" in ran.out
    assert sked("plan", "-f", str(manifest)).code == 0
    up(h3=1000)
    assert sked("plan", "-f", str(manifest), "--exit-code").code == 10
    assert sked("apply", "-f", str(manifest)).code == 0
    assert sked("plan", "-f", str(manifest), "--exit-code").code == 0


def test_other_services_are_shown_where_their_fate_changes(sked, store, up, running, declare) -> None:
    up(h1=1000)
    running("web", "h1", "h1", memory=400)
    running("idle", "h1")
    running("api", memory=500, desired=1)
    ran = sked("plan", "-f", "-", stdin=PAIR.replace("}", ", desired: 1}"))
    assert "of-api/api: 1 of 1 task placed: 1 new" in ran.out
    assert ran.out.splitlines()[-4] == "not declared here, but changed by it: of-api/api" and "idle" not in ran.out


def test_exactly_what_was_reviewed_is_applied(sked, store, up, manifest) -> None:
    up(h1=1000)
    number = revision(sked("plan", "-f", str(manifest)))
    store.commit([Put(keys.report("h1", "default-x-1-0"), b"{}")])  # nothing that it rests on
    ran = sked("apply", "-f", str(manifest), "--if-revision", number)
    assert (ran.code, ran.out.splitlines()[1]) == (0, "service/web created")
    assert decode(store.read(keys.service("web")).entries[keys.service("web")].value, Service).desired == 2


@pytest.mark.parametrize("what", ["host", "service", "removed", "file"])
def test_nothing_is_written_where_something_else_would_happen(sked, store, up, running, manifest, what) -> None:
    up(h1=1000, h2=1000)
    running("api", "h1")
    number = revision(sked("plan", "-f", str(manifest)))
    match what:
        case "host":
            up(h0=1000)
        case "service":
            sked("apply", "-f", str(manifest))
            manifest.write_text(manifest.read_text().replace("desired: 2", "desired: 3"))
        case "removed":
            store.commit([Delete(keys.live("h2"))])
        case "file":
            manifest.write_text(manifest.read_text().replace("desired: 2", "desired: 3"))
    before = content(store)
    ran = sked("apply", "-f", str(manifest), "--if-revision", number)
    assert ran.code == 5 and content(store) == before
    assert f"what was reviewed as {number} is not what would happen now" in ran.err and "now it would be:" in ran.err
    said = {"host": "written since: config/hosts/h0, hosts/live/h0", "service": "config/services/web"}
    assert said.get(what, "nothing that it rests on was written since") in ran.err


def test_a_number_of_another_store_is_refused(sked, up, manifest) -> None:
    up(h1=1000)
    ran = sked("apply", "-f", str(manifest), "--if-revision", "99999999912345678")
    assert ran.code == 5 and "that number is from another store" in ran.err


def test_what_somebody_writes_between_review_and_commit_is_noticed(sked, store, up, manifest, monkeypatch) -> None:
    up(h1=1000)
    number = revision(sked("plan", "-f", str(manifest)))
    commit = declaring.commit_changes

    def beaten(*args: object) -> None:
        monkeypatch.setattr(declaring, "commit_changes", commit)
        store.commit([Put(keys.service("web"), encode(a_service(desired=7)))])
        commit(*args)

    monkeypatch.setattr(declaring, "commit_changes", beaten)
    ran = sked("apply", "-f", str(manifest), "--if-revision", number)
    assert ran.code == 5 and "config/services/web" in ran.err
    assert decode(store.read(keys.service("web")).entries[keys.service("web")].value, Service).desired == 7


def test_the_same_state_gives_the_same_review(sked, store, up, running, manifest) -> None:
    up(h1=1000, h2=1000)
    running("api", "h1")
    assert sked("plan", "-f", str(manifest)) == sked("plan", "-f", str(manifest))


def test_folders_and_standard_input_are_the_same_as_files(sked, store, up, manifest, tmp_path) -> None:
    up(h1=1000)
    folder = tmp_path / "folder"
    folder.mkdir()
    manifest.rename(folder / "web.yml")
    by_folder = sked("plan", "-f", str(folder))
    by_stdin = sked("plan", "-f", "-", stdin=(folder / "web.yml").read_text())
    assert revision(by_folder) == revision(by_stdin)


def test_mistakes_and_warnings_are_those_of_an_apply(sked, store, up, manifest) -> None:
    up(h1=1000)
    wrong = sked("plan", "-f", "-", stdin=manifest.read_text().replace("desired", "desierd"))
    assert wrong.code == 3 and 'did you mean "desired"?' in wrong.err and not wrong.out
    pinned = sked("plan", "-f", "-", stdin=manifest.read_text().replace("desired: 2", "desired: 2, min: 2, max: 2"))
    assert pinned.code == 0 and "no room to replace a task" in pinned.err


def test_a_host_that_is_down_counts_as_lost_and_that_is_said(sked, store, up, running) -> None:
    up(h1=1000, h2=1000, h3=1000)
    running("web", "h1", "h2")
    store.commit([Delete(keys.live("h2"))])
    ran = sked("plan", "-f", "-", stdin=PAIR)
    assert "note: h2 is lost, unless its agent comes back" in ran.err
    assert [line.split()[:3] for line in ran.out.splitlines() if line.startswith("of-web-")] == [
        ["of-web-web-1-1", "h2", "h3"]
    ]


def test_programs_get_all_of_it(sked, store, up, running) -> None:
    up(h1=1000, h2=300)
    running("web", "h1", memory=600)
    ran = sked("plan", "-f", "-", "-o", "json", stdin=PAIR.replace("}", ", desired: 2}"))
    found = json.loads(ran.out)
    [item] = found["items"]
    assert (found["kind"], item["pending"], item["unplaced"], item["complete"]) == ("Plan", True, 1, True)
    assert item["objects"][0]["fields"][0] == {"path": "desired", "before": "1", "after": "2"}
    [service] = item["services"]
    assert service["stay"] == [{"id": "of-web-web-1-0", "host": "h1"}] and service["declared"]
    assert service["refusals"] == {
        "h1": ["memory: free 400 MB < 600 MB"], "h2": ["memory: free 300 MB < 600 MB"],
    }  # fmt: skip
    assert item["apply"] == f"sked apply -f - --if-revision {item['revision']}"
