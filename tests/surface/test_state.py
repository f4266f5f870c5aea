"""``sked state dump`` and ``restore``: everything arrives, nothing is overwritten, and no file is believed unseen."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import Denied, Unavailable
from sked_core.interfaces.store import Delete, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Mark, Presence, Rollout, ServiceStatus
from sked_core.runtime import dump as dumps
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import store_uid
from sked_core.runtime.stores.memory import MemoryStore

MOVES = {
    keys.mark("node-1.local"): encode(Mark("draining")),
    keys.rollout("helloworld"): encode(Rollout(number=2, task_name="helloworld", task_version=4, state="paused")),
    keys.ended_rollout("helloworld", 1): encode(Rollout(number=1, task_name="helloworld", task_version=3)),
    keys.events("01795970026087-s1-1"): b"[]",
    keys.service_status("helloworld"): encode(ServiceStatus(scheduler="default")),
    keys.report("node-1.local", "default-helloworld-4-0"): b'{"healthy": true, "output": ""}',
    keys.task("strange-1"): b"\xff\x00 no text",
    keys.task("strange-2"): b"",
    keys.task("strange-3"): b'{"a": 1, "a": 2}',
    keys.task("strange-4"): '{"name":"Ünïcödé","big":123456789012345678901234567890,"one":1.0}'.encode(),
    keys.task("strange-5"): b"[1]",
}
STAYS = {
    keys.health("node-1.local", "default-helloworld-4-0"): b"{}",
    keys.changed("helloworld"): b"me",
    keys.failure("default-helloworld-4-0"): b"{}",
    "somebody/elses": b"business",
}


def values(store: Store) -> dict[str, bytes]:
    return {key: entry.value for key, entry in store.read("").entries.items()}


@pytest.fixture
def full(sked, store: Store, manifest: Path, task, issue) -> dict[str, bytes]:
    """A store with something of every kind in it; what of it has to move."""
    assert sked("apply", "-f", str(manifest)).code == 0
    issue(*(task(instance=number) for number in range(3)))
    moving = {key: value for key, value in values(store).items() if not key.startswith(keys.HEALTH)} | MOVES
    lease = store.grant(60)
    store.commit([Put(key, value) for key, value in (MOVES | STAYS).items()])
    store.commit([Put(keys.live("node-1.local"), b"{}", lease), Put(keys.service_lock("web"), b"me", lease)])
    return moving


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'other.db'}"


@pytest.fixture
def opened(other: str) -> Any:
    store = open_store(other, Plugins([]))
    yield store
    store.close()


def test_everything_that_must_move_arrives_byte_by_byte_and_nothing_else(
    sked, full: dict[str, bytes], other: str, opened: Store, tmp_path: Path
) -> None:
    file = tmp_path / "state.json"
    ran = sked("state", "dump", "--output", str(file))
    assert (ran.code, ran.out) == (0, "")
    assert f"dumped: {len(full) - 1} keys of store" in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text())
    assert (document["api"], document["kind"], document["format"]) == ("sked/v1", "StateDump", 1)
    assert [item["key"] for item in document["items"]] == sorted(full.keys() - {keys.STORE_UID})
    by_key = {item.pop("key"): item for item in document["items"]}
    assert by_key[keys.mark("node-1.local")]["json"]["state"] == "draining"
    assert by_key[keys.task("strange-1")] == {"base64": base64.b64encode(b"\xff\x00 no text").decode()}
    assert by_key[keys.task("strange-3")] == {"text": '{"a": 1, "a": 2}'}
    ran = sked("--backend", other, "state", "restore", str(file))
    assert ran.code == 0, ran.err
    assert f"restored: {len(full)} keys" in ran.err
    assert "must not be used any more" in ran.err
    assert values(opened) == full
    again = sked("--backend", other, "state", "restore", str(file))
    assert (again.code, "unchanged" in again.err) == (0, True)
    assert list(tmp_path.glob(".*")) == []


def test_it_goes_through_pipes_as_well(sked, full: dict[str, bytes], other: str, opened: Store) -> None:
    document = sked("state", "dump").out
    assert sked("--backend", other, "--prefix", "team-a", "state", "restore", "-", stdin=document).code == 0
    assert values(opened) == {f"team-a/{key}": value for key, value in full.items()}
    back = sked("--backend", other, "--prefix", "team-a", "state", "dump").out
    assert json.loads(back) | {"made": ""} == json.loads(document) | {"made": ""}


def test_running_schedulers_are_named(sked, store: Store, full: dict[str, bytes]) -> None:
    assert "warning" not in sked("state", "dump").err
    store.commit([Put(keys.scheduler("s1"), encode(Presence(["default"])), store.grant(60))])
    assert "warning: 1 scheduler of it still running" in sked("state", "dump").err


def test_a_store_that_is_in_use_is_not_restored_into(
    sked, store: Store, full: dict[str, bytes], other: str, opened: Store
) -> None:
    document = sked("state", "dump").out
    for key, value in ((keys.service("web"), b"{}"), (keys.live("h1"), b"{}"), (keys.STORE_UID, b"another")):
        opened.commit([Put(key, value)])
        before = values(opened)
        ran = sked("--backend", other, "state", "restore", "-", stdin=document)
        assert ran.code == 5
        assert f"is not empty, and holds other things than the dump: {key}; nothing was written" in ran.err
        assert values(opened) == before
        opened.commit([Delete(key)])
    # Keys of others are nobody's business.
    opened.commit([Put("somebody/elses", b"x")])
    assert sked("--backend", other, "state", "restore", "-", stdin=document).code == 0
    # Once it has gone on living, it is not written into again.
    opened.commit([Delete(keys.service("web"))])
    ran = sked("--backend", other, "state", "restore", "-", stdin=document)
    assert (ran.code, keys.STORE_UID in ran.err) == (5, True)


def test_what_a_token_may_not_read_is_not_left_out_without_a_word(task) -> None:
    class Narrow(MemoryStore):
        """As Consul does: lists lack what may not be read, and only asked for by itself it is denied."""

        def read(self, prefix: str) -> Any:
            if prefix.startswith(keys.STATE):
                raise Denied("the token lacks a permission")
            found = super().read(prefix)
            allowed = {key: entry for key, entry in found.entries.items() if not key.startswith(keys.STATE)}
            return replace(found, entries=allowed)

    store = Narrow()
    dumps.put(store, _dump_of(task, 1))
    with pytest.raises(Denied):
        dumps.take(store, sked="", made="")


def test_an_empty_store_and_one_of_strangers_can_not_be_dumped(sked, store: Store) -> None:
    store.commit([Put("somebody/elses", b"x")])
    ran = sked("state", "dump")
    assert (ran.code, ran.out) == (4, "")
    assert f"the store holds no {keys.STORE_UID}" in ran.err


def _document(*items: dict[str, Any], **more: Any) -> str:
    head = {"api": "sked/v1", "kind": "StateDump", "format": 1, "sked": "0.1.0", "made": "", "store_uid": "ab12"}
    return json.dumps(head | {"items": list(items)} | more)


SOUND = {"key": "config/clusters/a", "json": {"name": "a"}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "no whole dump: Input data was truncated"),
        (_document(SOUND)[:-40], "no whole dump"),
        ("[" * 100_000, "no whole dump"),
        ("null", "no whole dump"),
        ('{"clusters": []}', "no dump of `sked state dump`"),
        (_document(format=2, sked="9.0.0", items=7), "format: format 2 is not the 1 that this version reads"),
        (_document(store_uid=""), "store_uid: '' can't name a store"),
        (_document(store_uid="a\nb"), "can't name a store"),
        (_document(SOUND, SOUND), "items[1]: 'config/clusters/a' stands here twice"),
        (_document({"key": "state/tasks/../../config/x", "text": ""}), "items[0]: 'state/tasks/../../config/x' can't"),
        (_document({"key": "config/", "text": ""}), "can't be a key"),
        (_document({"key": "config/a\u202eb", "text": ""}), "can't be a key"),
        (_document({"key": "config/" + "x" * 2000, "text": ""}), "can't be a key"),
        (_document({"key": "meta/store_uid", "text": "x"}), "is none of the keys that a dump has"),
        (_document({"key": "hosts/live/h1", "text": "x"}), "is none of the keys that a dump has"),
        (_document({"key": "somebody/elses", "text": "x"}), "is none of the keys that a dump has"),
        (_document({"key": "config/a"}), "needs one of json, text and base64"),
        (_document({"key": "config/a", "text": "", "base64": ""}), "needs one of json, text and base64"),
        (_document({"key": "config/a", "json": []}), "no whole dump: Expected `object | null`"),
        (_document({"key": "config/a", "base64": "*"}), "no whole dump: Invalid base64"),
        (_document({"key": "config/a", "text": "", "lease": "x"}), "unknown field `lease`"),
        (_document({"key": "config/a", "text": "x" * 400_000}), "400000 bytes are more than"),
    ],
    ids=range(22),
)
def test_a_file_that_is_no_whole_dump_writes_nothing(sked, store: Store, document: str, words: str) -> None:
    ran = sked("state", "restore", "-", stdin=document)
    assert ran.code == 3
    assert words in ran.err
    assert values(store) == {}


REPEATED = r"""{"api": "sked/v1", "kind": "StateDump", "format": 1, "sked": "0.1.0", "made": "", "store_uid": "ab12",
 "items": [
  {"key": "config/services/b", "text": "ä{\"a\": 1, \"a\": 2} \\\""}, {"key": "config/clusters/a", %s"json":
   {"name": "a", "more": [{"name": {}}, {"name": "}{", "inner": {"name": "a"%s}}]}}
 ]%s}"""


@pytest.mark.parametrize(
    ("holes", "place", "field"),
    [
        (("", r', "n\u0061me" : "b"', ""), "4:79", "name"),
        (('"json": {}, ', "", ""), "3:112", "json"),
        (('"key": "config/clusters/b", ', "", ""), "3:100", "key"),
        (("", "", ', "store_uid": "cd34"'), "5:5", "store_uid"),
        (("", "", ', "items": []'), "5:5", "items"),
        (("", "", ', "unknown": {"x\\ny": 1,\n\n"x\\ny": 1}'), "7:1", r"x\ny"),
    ],
)
def test_a_field_that_one_object_has_twice_writes_nothing(
    sked, store: Store, holes: tuple[str, str, str], place: str, field: str
) -> None:
    ran = sked("state", "restore", "-", stdin=REPEATED % holes)
    assert (ran.code, values(store)) == (3, {})
    assert f"-:{place}: '{field}' stands here twice in one object" in ran.err


def test_what_only_looks_like_a_field_twice_is_restored_as_it_stands(sked, store: Store) -> None:
    assert sked("state", "restore", "-", stdin=REPEATED % ("", "", "")).code == 0
    found = values(store)
    assert found["config/services/b"] == 'ä{"a": 1, "a": 2} \\"'.encode()
    assert found["config/clusters/a"] == b'{"name":"a","more":[{"name":{}},{"name":"}{","inner":{"name":"a"}}]}'


def test_of_many_mistakes_the_first_are_named(sked, url: str) -> None:
    ran = sked("state", "restore", "-", stdin=_document(*({"key": f"x/{number}", "text": ""} for number in range(99))))
    assert (ran.code, ran.err.count("is none of the keys")) == (3, dumps.MAX_PROBLEMS)


def test_files_that_can_not_be_read_or_written(sked, full: dict[str, bytes], tmp_path: Path) -> None:
    assert sked("state", "restore", str(tmp_path / "none")).code == 3
    assert sked("state", "restore", str(tmp_path)).code == 3
    assert sked("state", "dump", "--output", str(tmp_path / "none" / "f")).code == 2
    os.mkfifo(tmp_path / "pipe")
    assert "is no plain file" in sked("state", "dump", "--output", str(tmp_path / "pipe")).err
    existing = tmp_path / "existing"
    existing.write_text("x")
    existing.chmod(0o644)
    (tmp_path / "link").symlink_to(existing)
    assert sked("state", "dump", "--output", str(tmp_path / "link")).code == 0
    assert json.loads(existing.read_text())["kind"] == "StateDump"
    assert stat.S_IMODE(existing.stat().st_mode) == 0o600


class Breaking(MemoryStore):
    """A store that goes away with the ``left``-th commit from now."""

    left = 0

    def commit(self, ops: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise Unavailable("gone")
        return super().commit(ops)


def _dump_of(task: Callable[..., Any], count: int) -> dumps.Dump:
    store = MemoryStore()
    store_uid(store, create=True)
    for number in range(count):
        one = task(instance=number)
        store.commit([Put(keys.task(one.id), encode(one)), Put(keys.host_task(one.host, one.id), encode(one))])
        store.commit([Put(keys.service(f"s{number}"), b"{}"), Put(keys.service_status(f"s{number}"), b"{}")])
    return dumps.parse(dumps.take(store, sked="", made="")[0].encode(), "-")


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_a_restore_that_is_cut_short_leaves_a_store_without_a_name_and_can_be_gone_on_with(task, at: int) -> None:
    dump, target = _dump_of(task, 50), Breaking()
    target.left = at
    with pytest.raises(Unavailable):
        dumps.put(target, dump)
    half = values(target)
    assert keys.STORE_UID not in half
    # Whoever looks at half of it sees no service without all of the tasks, and no status without all services.
    if any(key.startswith(keys.SERVICES) for key in half):
        assert sum(key.startswith(keys.STATE) for key in half) == 100
    if any(key.startswith(keys.SERVICE_STATUS) for key in half):
        assert sum(key.startswith(keys.SERVICES) for key in half) == 50
    assert dumps.put(target, dump) == 201 - len(half)
    assert values(target) == {item.key: item.value for item in dump.items} | {keys.STORE_UID: dump.store_uid.encode()}
    assert dumps.put(target, dump) == 0


def test_a_store_that_somebody_names_meanwhile_is_left_to_them(task) -> None:
    class Raced(MemoryStore):
        def commit(self, ops: Any) -> Any:
            super().commit([Put(keys.STORE_UID, b"theirs")])
            return super().commit(ops)

    target = Raced()
    with pytest.raises(Exception, match=keys.STORE_UID) as failure:
        dumps.put(target, _dump_of(task, 3))
    assert "stop that, empty the store and restore again" in getattr(failure.value, "hint", "")
    assert values(target) == {keys.STORE_UID: b"theirs"}
