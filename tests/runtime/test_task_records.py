"""Tasks in a scheduler's memory: what is shared, what is kept raw, and what is told of each."""

from __future__ import annotations

import msgspec

from sked_core.interfaces.store import Entry, Revision
from sked_core.logic.plan import Issued
from sked_core.model import codec, keys
from sked_core.runtime.scheduling.task_records import TaskRecords
from sked_core.runtime.state import decode_task
from sked_core.testing.builders import a_task


def entry(value: bytes, revision: int = 1) -> Entry:
    return Entry(value, Revision(revision))


def test_tasks_are_as_decoded_one_by_one_and_share_what_is_equal() -> None:
    tasks = [a_task(instance=number, host=f"h{number}") for number in range(3)]
    entries = {keys.task(task.id): entry(codec.encode(task)) for task in tasks}
    records = TaskRecords()
    assert records.take(entries) == dict.fromkeys(entries)
    assert records.objects == {key: decode_task(key, one) for key, one in entries.items()}
    shared = {(id(one.task.cluster), id(one.task.task_definition)) for one in records.objects.values()}
    assert len(shared) == 1


def test_only_what_changed_is_told() -> None:
    one, other = a_task(instance=0), a_task(instance=1)
    first, second = keys.task(one.id), keys.task(other.id)
    records = TaskRecords()
    records.take({first: entry(codec.encode(one)), second: entry(codec.encode(other))})
    before = records.objects[second]
    assert records.take({first: entry(codec.encode(one)), second: entry(codec.encode(other))}) == {}
    assert records.take({first: entry(codec.encode(one))}) == {second: before}
    assert records.take({first: entry(codec.encode(one), 2)}).keys() == {first}  # written anew
    moved = codec.encode(msgspec.structs.replace(one, host="elsewhere"))
    assert records.take({first: entry(moved, 2)}).keys() == {first}  # another store that counted as far
    assert records.objects[first].task.host == "elsewhere"


def test_what_is_no_task_is_a_fault_with_the_place_where_it_is_wrong() -> None:
    task = a_task()
    key = keys.task(task.id)
    broken = codec.patch(codec.encode(task), task_definition={"name": "web", "version": "one"})
    records = TaskRecords()
    records.take({key: entry(broken), keys.task("other-web-1-0"): entry(codec.encode(task))})
    assert records.objects == {}
    assert "$.task_definition.version" in records.faults[key]
    assert "the record default-web-1-0" in records.faults[keys.task("other-web-1-0")]


def test_bytes_are_kept_where_they_say_more_than_the_task() -> None:
    task = a_task()
    key, more = keys.task(task.id), codec.patch(codec.encode(task), added="by somebody")
    records = TaskRecords()
    records.take({key: entry(more)})
    assert records.raw(key) == more
    withdrawn = msgspec.structs.replace(task, scheduled=False)
    patched = codec.patch(more, scheduled=False)
    records.put(key, entry(patched, 2), Issued(withdrawn, Revision(2)))
    assert records.raw(key) == patched
    assert records.take({key: entry(patched, 2)}) == {}
    records.take({key: entry(codec.encode(task), 3)})
    assert records.raw(key) is None
