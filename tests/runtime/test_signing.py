"""Signed records: what nobody has signed whom the host's policy names is not started, whoever can write the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.issuing import HOST
from runtime.solo import Solo
from runtime.stage import Stage
from sked_core.clock import SystemClock
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.policy import Policy, SigningGate
from sked_core.model.signing import spelled
from sked_core.model.types import Container, Task, TaskDefinition
from sked_core.runtime.state import store_uid
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task
from sked_core.testing.clock import FakeClock

pytest.importorskip("cryptography")
from sked_core.runtime.signing import Signer, load_private, new_private, public_of

DAY = 86_400.0


class Signed:
    """A host that asks for signatures, and somebody who has the key."""

    def __init__(self, solo: Solo, folder: Path, **gate: Any) -> None:
        self.solo, self.key = solo, folder / "signing.pem"
        public = spelled(new_private(self.key))
        self.signer = Signer(self.key, solo.clock)
        solo.settings = {
            "policy": Policy(executors=["bash"], signing=SigningGate(required=True, **{"keys": [public]} | gate))
        }
        solo.crash()
        solo.settle()
        self.uid = store_uid(solo.memory)

    def record(self, task: Task, **changes: Any) -> bytes:
        """``task``, signed, with what a thief changes in it afterwards."""
        return encode(json.loads(encode(self.signer.signed(task, self.uid))) | changes)

    def put(self, record: bytes, *, host: str = HOST) -> None:
        task = decode(record, Task)
        self.solo.memory.commit([Put(k, record) for k in (keys.task(task.id), keys.host_task(host, task.id))])
        self.solo.settle()

    def reason(self, task: Task) -> str:
        """Why it was rejected; empty if it was not."""
        key = keys.host_task(HOST, task.id)
        entry = self.solo.memory.read(key).entries.get(key)
        return decode(entry.value, Task).reject_reason if entry else "gone"


@pytest.fixture
def signed(solo: Solo, tmp_path: Path) -> Signed:
    return Signed(solo, tmp_path)


def test_what_is_signed_runs_and_starts_again_when_it_ends(signed: Signed) -> None:
    task = a_task(HOST, 0)
    signed.put(signed.record(task))
    assert signed.solo.engine.running() == [task.id]
    signed.solo.engine.kill(task.id)
    signed.solo.pass_time(60)
    assert signed.solo.engine.running() == [task.id] and len(signed.solo.engine.starts) > 1


def test_who_has_stolen_the_right_to_write_starts_nothing_and_is_told_why(signed: Signed) -> None:
    task = a_task(HOST, 0)
    signed.put(encode(task))
    assert signed.solo.engine.starts == []
    assert "policy signing: the record carries no signature" in signed.reason(task)
    assert signed.reason(task).endswith("docs/signing.md"), "where the next step is"
    assert [event.what for event in signed.solo.events if "signing" in event.why]


OTHER = a_definition(containers=[Container(name="evil", type="bash", executor={"start": "rm -rf /"})])


def tampered() -> dict[str, dict[str, Any]]:
    """A change of every field of a record that says what runs."""
    plain = json.loads(encode(a_task(HOST, 0)))
    definition = plain["task_definition"]
    container = definition["containers"][0]
    changes: dict[str, dict[str, Any]] = {
        "all of it": {"task_definition": json.loads(encode(OTHER))},
        "port": {"port": 7},
        "cluster": {"cluster": plain["cluster"] | {"datacenter": "x"}},
        "unknown": {"new_field": 1},
    }
    for name, value in {
        "memory": 7,
        "tags": ["x"],
        "max_attempts": 99,
        "grace_period": 1,
        "shutdown_delay": "9s",
    }.items():
        changes[f"definition.{name}"] = {"task_definition": definition | {name: value}}
    for name, value in {"executor": {"start": "x"}, "setup": ["x"], "checks": [{"script": "x"}], "memory": 9}.items():
        changes[f"container.{name}"] = {"task_definition": definition | {"containers": [container | {name: value}]}}
    return changes


@pytest.mark.parametrize("what", tampered())
def test_no_field_of_what_was_signed_can_be_changed(signed: Signed, what: str) -> None:
    task = a_task(HOST, 0)
    signed.put(signed.record(task, **tampered()[what]))
    assert signed.solo.engine.starts == []
    assert "of other content" in signed.reason(task)


def definitions(solo: Solo) -> list[TaskDefinition]:
    """Of what was started and is still there."""
    return [one.task.task_definition for one in solo.engine.containers.values()]


def test_a_field_that_stands_twice_is_not_read_one_way_and_run_the_other(signed: Signed) -> None:
    task = a_task(HOST, 0)
    evil = encode(OTHER)
    for record in (
        b'{"task_definition":' + evil + b"," + signed.record(task)[1:],
        signed.record(task)[:-1] + b',"task_definition":' + evil + b"}",
    ):
        signed.put(record)
        signed.solo.pass_time(5)
        ran = [container.executor for one in definitions(signed.solo) for container in one.containers]
        assert {"start": "rm -rf /"} not in ran


def test_a_record_of_another_host_task_or_store_is_not_one_of_this(signed: Signed) -> None:
    task = a_task(HOST, 0)
    signed.put(signed.record(a_task("h2", 0), host=HOST))
    assert "of other content, or for another host" in signed.reason(task)
    signed.put(signed.record(task, instance=1))
    assert "of other content, or for another host" in signed.reason(a_task(HOST, 1))
    signed.uid = "another-store"
    signed.put(signed.record(a_task(HOST, 2)))
    assert "of other content, or for another host" in signed.reason(a_task(HOST, 2))
    assert signed.solo.engine.starts == []


def test_what_was_withdrawn_is_not_started_again_from_its_old_record(signed: Signed) -> None:
    task = a_task(HOST, 0)
    record = signed.record(task)
    both = [Delete(keys.task(task.id)), Delete(keys.host_task(HOST, task.id))]
    signed.put(record)
    signed.solo.memory.commit(both)
    signed.solo.settle()
    assert signed.solo.engine.running() == []
    signed.solo.crash()  # it is on the disk
    signed.put(record)
    signed.solo.pass_time(5)
    assert signed.solo.engine.running() == [] and "somebody has put it back" in signed.reason(task)
    signed.solo.pass_time(1)
    signed.put(signed.record(task))  # issued anew
    assert signed.solo.engine.running() == [task.id]


def test_an_older_record_does_not_take_the_place_of_a_newer_one(signed: Signed) -> None:
    old = signed.record(a_task(HOST, 0, a_definition(tags=["old"])))
    signed.solo.pass_time(1)
    signed.put(signed.record(a_task(HOST, 0)))
    signed.put(old)
    assert signed.solo.engine.running() == [] and "somebody has put it back" in signed.reason(a_task(HOST, 0))


def test_a_record_that_this_host_never_had_counts_for_max_age_only(signed: Signed) -> None:
    late, running = signed.record(a_task(HOST, 0)), a_task(HOST, 1)
    signed.put(signed.record(running))
    signed.solo.clock.advance(DAY + 1)
    signed.put(late)
    assert "more than signing.max_age" in signed.reason(a_task(HOST, 0))
    signed.solo.engine.kill(running.id)  # what was accepted in time starts again however old it is
    signed.solo.pass_time(60)
    assert signed.solo.engine.running() == [running.id]


def test_a_clock_that_is_far_ahead_is_told(signed: Signed) -> None:
    clock = FakeClock(wall=signed.solo.clock.wall() + 3600)
    signed.signer = Signer(signed.key, clock)
    signed.put(signed.record(a_task(HOST, 0)))
    assert "ahead of this host's clock" in signed.reason(a_task(HOST, 0))


def test_what_runs_already_is_left_alone_until_it_would_start_again(solo: Solo, tmp_path: Path) -> None:
    task = a_task(HOST, 0)
    solo.issue(task)
    solo.pass_time(5)
    signed = Signed(solo, tmp_path)
    solo.pass_time(30)
    assert solo.engine.running() == [task.id]
    solo.engine.kill(task.id)
    solo.pass_time(60)
    assert solo.engine.running() == [] and "carries no signature" in signed.reason(task)


def test_a_restart_that_people_ask_for_needs_no_key(signed: Signed) -> None:
    task = a_task(HOST, 0)
    signed.put(signed.record(task))
    signed.put(signed.record(task, restarts=1))
    signed.solo.pass_time(5)
    assert signed.solo.engine.running() == [task.id] and len(signed.solo.engine.starts) == 2


def test_keys_are_rotated_in_a_file_while_the_agent_runs(solo: Solo, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.write_text(f"# those of the schedulers\n{spelled(new_private(tmp_path / 'former.pem'))}\n")
    signed = Signed(solo, tmp_path, keys=[str(trusted)])
    task = a_task(HOST, 0)
    signed.put(signed.record(task))
    assert "not among signing.keys" in signed.reason(task)
    trusted.write_text(trusted.read_text() + public_of(signed.key) + "\n")
    solo.pass_time(1)
    signed.put(signed.record(task))
    assert solo.engine.running() == [task.id]


def test_a_scheduler_takes_up_another_key_while_it_runs(tmp_path: Path) -> None:
    key, other = tmp_path / "a.pem", tmp_path / "b.pem"
    new_private(key)
    signer = Signer(key, SystemClock())
    first = signer.signed(a_task(), "uid").signature
    new_private(other)
    other.replace(key)
    second = signer.signed(a_task(), "uid").signature
    assert first.key != second.key  # type: ignore[union-attr]
    key.write_text("no key")
    assert signer.signed(a_task(), "uid").signature.key == second.key  # type: ignore[union-attr]


def test_a_scheduler_signs_what_it_issues_and_nothing_that_it_finds(
    stage: Stage, declare: Callable[..., None], tmp_path: Path
) -> None:
    new_private(tmp_path / "key.pem")
    loop = stage.scheduler(signer=Signer(tmp_path / "key.pem", stage.clock))
    declare(stage.memory, a_cluster(), a_service(desired=2), a_definition())
    stage.until("issued", lambda: loop.step() is None or len(stage.tasks()) == 2)
    tasks = stage.tasks()
    assert all(task.signature.at for task in tasks.values())  # type: ignore[union-attr]
    name, task = next(iter(tasks.items()))
    forged = replace(task, task_definition=OTHER)
    both = (keys.task(name), keys.host_task(task.host, name))
    stage.memory.commit([Put(key, encode(forged)) for key in both] + [Put(keys.changed("web"), b"thief")])
    declare(stage.memory, a_service(desired=0, min=0))

    def withdrawn() -> bool:
        loop.step()
        return not any(task.scheduled for task in stage.tasks().values())

    stage.until("all are to stop", withdrawn)
    assert stage.tasks()[name].signature == task.signature, "it is that of what was there before the thief"


def test_no_key_is_read_that_others_may_read_and_none_is_overwritten(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    new_private(key)
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidValue, match="can't write"):
        new_private(key)
    key.chmod(0o640)
    with pytest.raises(InvalidValue, match="may be read by others"):
        load_private(key)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"required": True}, "keys names none"),
        ({"keys": ["ed25519:AAAA"]}, "is no public key"),
        ({"keys": ["rsa:x"]}, "is no public key"),
        ({"max_age": "0s"}, "no time that passes"),
    ],
)
def test_a_policy_that_can_not_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SigningGate(**fields)
