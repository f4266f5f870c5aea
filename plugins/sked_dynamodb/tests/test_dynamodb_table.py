"""What stands in the table: made on first use, readable for others, trimmed, and never seen half-way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from rigs.clients import within
from sked_core.plugin import CheckOp, Conflict, Delete, LeaseLost, Put, Revision, Unavailable
from sked_dynamodb import commits, records, snapshots, trim
from sked_dynamodb.store import DynamoStore

PATIENCE = 60.0
OpenStore = Callable[[], DynamoStore]


@pytest.fixture
def aws(dynamodb: str) -> Any:
    """A client of the same DynamoDB, without Sked."""
    return boto3.client("dynamodb", region_name="eu-central-1", endpoint_url=dynamodb)


def item_of(aws: Any, table: str, kind: str, name: str) -> Any:
    return aws.get_item(TableName=table, Key=records.key_of(kind, name), ConsistentRead=True).get("Item")


def names(aws: Any, table: str, kind: str) -> list[str]:
    values = {":kind": {"S": kind}}
    found = aws.query(TableName=table, KeyConditionExpression="kind = :kind", ExpressionAttributeValues=values)
    return [item["id"]["S"] for item in found["Items"]]


def test_the_first_use_makes_the_table_and_others_find_it(open_store: OpenStore, aws: Any, table: str) -> None:
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = sorted(pool.map(lambda store: store.commit([Put(f"a/{id(store)}", b"x")]), stores))
    assert made == [1, 2, 3, 4]
    described = aws.describe_table(TableName=table)["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert len(stores[0].read("a/").entries) == 4


def test_somebody_else_s_table_is_left_alone(open_store: OpenStore, aws: Any, table: str) -> None:
    aws.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    with pytest.raises(Exception, match="not one of Sked's") as refused:
        open_store().commit([Put("a", b"")])
    assert "another table" in refused.value.hint  # type: ignore[attr-defined]
    assert aws.scan(TableName=table)["Count"] == 0


def test_values_stand_there_as_text(open_store: OpenStore, aws: Any, table: str) -> None:
    store = open_store()
    revision = store.commit([Put("config/clusters/default", b'{"name":"default"}'), Put("raw", b"\xff")])
    found = item_of(aws, table, "entry", "config/clusters/default")
    assert found["body"] == {"S": '{"name":"default"}'}
    assert found["revision"] == {"N": str(revision)}
    assert item_of(aws, table, "entry", "raw")["body"] == {"B": b"\xff"}


def test_what_somebody_put_past_sked_is_no_reason_to_stop(open_store: OpenStore, aws: Any, table: str) -> None:
    store = open_store()
    store.commit([Put("a/1", b"1"), Put("a/2", b"2")])
    aws.put_item(TableName=table, Item={**records.key_of("entry", "a/1"), "body": {"S": "by hand"}})
    assert set(store.read("a/").entries) == {"a/2"}
    other = open_store()  # which has to see that the last commit, of which a/1 was a part, is whole
    revision = other.commit([Put("a/1", b"again")])
    assert store.read("a/").entries["a/1"].revision == revision


def test_old_changes_and_traces_are_trimmed(
    open_store: OpenStore, aws: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (records, trim):
        monkeypatch.setattr(module, "CHANGES_KEPT", 20)
    store = open_store()
    store.commit([Put("a/kept", b""), Put("a/back", b"")])
    store.commit([Delete("a/gone"), Delete("a/back")])
    back = store.commit([Put("a/back", b"2")])
    for number in range(60):
        store.commit([Put("b", b"%d" % number)])
    seen = store.read("a/")
    store.wait("a/", seen.revision, 0.1)  # starts the thread that trims
    within(PATIENCE, lambda: len(names(aws, table, "change")) <= 20)
    assert names(aws, table, "entry") == ["a/back", "a/kept", "b"]
    assert open_store().read("a/").entries["a/back"].revision == back
    changes = names(aws, table, "change")
    assert changes[-1] == records.change_id(seen.revision)
    assert store.wait("a/", Revision(1), 10) == seen.revision, "what is no longer known may have been a change"


# --- a transaction of which some items can be seen, and some can not yet


def unfinished(aws: Any, table: str, *items: records.Item) -> None:
    for item in items:
        aws.put_item(TableName=table, Item=item)


def test_a_read_waits_for_the_rest_of_a_commit_that_it_sees_a_part_of(
    open_store: OpenStore, aws: Any, table: str
) -> None:
    """Whatever comes first, the snapshot is the state before or after; here the head and the change came first."""
    store = open_store()
    store.commit([Put("a/old", b"1"), Put("a/gone", b"1")])
    change = records.Change(2, "m", ("a/new", "a/old"), ("a/gone",))
    unfinished(aws, table, records.head_item(records.Head(2, "m")), records.change_item(change))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(store.read, "a/")
        unfinished(aws, table, records.entry_item("a/new", 2, b"2", ""), records.entry_item("a/old", 2, b"2", ""))
        time.sleep(0.3)
        assert not reading.done(), "the deletion can't be seen yet"
        unfinished(aws, table, records.trace_item("a/gone", 2))
        snapshot = reading.result(PATIENCE)
    assert {key: entry.value for key, entry in snapshot.entries.items()} == {"a/new": b"2", "a/old": b"2"}
    assert snapshot.revision == 2


@pytest.mark.parametrize("seen", ["a put", "a deletion"])
def test_a_read_that_sees_an_entry_before_its_commit_waits_for_it(
    open_store: OpenStore, aws: Any, table: str, seen: str
) -> None:
    store = open_store()
    store.commit([Put("a/old", b"1"), Put("a/gone", b"1")])
    put, trace = records.entry_item("a/old", 2, b"2", ""), records.trace_item("a/gone", 2)
    first, second = (put, trace) if seen == "a put" else (trace, put)
    unfinished(aws, table, first)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(store.read, "a/")
        time.sleep(0.3)
        assert not reading.done()
        head, change = records.Head(2, "m"), records.Change(2, "m", ("a/old",), ("a/gone",))
        unfinished(aws, table, second, records.change_item(change), records.head_item(head))
        snapshot = reading.result(PATIENCE)
    assert {key: entry.value for key, entry in snapshot.entries.items()} == {"a/old": b"2"}


def test_nobody_commits_on_top_of_a_commit_that_is_not_whole(open_store: OpenStore, aws: Any, table: str) -> None:
    store, other = open_store(), open_store()
    store.commit([Put("a", b"1")])
    head, change = records.Head(2, "m"), records.Change(2, "m", ("a", "b"), ())
    unfinished(aws, table, records.head_item(head), records.change_item(change), records.entry_item("a", 2, b"2", ""))
    with ThreadPoolExecutor(2) as pool:
        committing = [pool.submit(each.commit, [Put(f"c/{number}", b"")]) for number, each in enumerate((store, other))]
        time.sleep(0.3)
        assert not any(each.done() for each in committing)
        unfinished(aws, table, records.entry_item("b", 2, b"2", ""))
        assert sorted(each.result(PATIENCE) for each in committing) == [3, 4]


def test_a_commit_that_stays_half_way_is_an_error_in_time(
    open_store: OpenStore, aws: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (commits, snapshots):
        monkeypatch.setattr(module, "TRY_SECONDS", 0.3)
    store = open_store()
    store.commit([Put("a", b"1")])
    unfinished(aws, table, records.head_item(records.Head(2, "m")))
    for call in (lambda: store.read(""), lambda: store.commit([Put("b", b"")])):
        with pytest.raises(Unavailable):
            call()


# --- lost answers


def test_a_commit_whose_answer_is_lost_is_made_once(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = open_store(), open_store()
    start = store.commit([Put("a", b"0")])
    once = store._client.once
    lost: list[str] = []

    def lossy(operation: str, **arguments: Any) -> Any:
        answer = once(operation, **arguments)
        if operation == "transact_write_items" and len(lost) < 2:
            lost.append(operation)
            if len(lost) == 2:  # and before it is asked again, somebody builds on it
                other.commit([Put("b", b"")])
            raise Unavailable("lost")
        return answer

    monkeypatch.setattr(store._client, "once", lossy)
    revision = store.commit([CheckOp("a", start), Put("a", b"1")])
    assert lost == ["transact_write_items"] * 2
    assert revision == start + 1
    assert store.read("").entries["a"].revision == revision
    with pytest.raises(Conflict):
        store.commit([CheckOp("a", start), Put("a", b"2")])


def test_a_request_that_is_lost_is_sent_again(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = open_store(), open_store()
    store.commit([Put("a", b"0")])
    once = store._client.once
    lost: list[str] = []

    def lossy(operation: str, **arguments: Any) -> Any:
        if operation == "transact_write_items" and not lost:
            lost.append(operation)
            other.commit([Put("b", b"")])  # takes the place meanwhile
            raise Unavailable("lost")
        return once(operation, **arguments)

    monkeypatch.setattr(store._client, "once", lossy)
    assert store.commit([Put("a", b"1")]) == 3
    assert {key: entry.revision for key, entry in store.read("").entries.items()} == {"a": 3, "b": 2}


# --- turns


def test_writers_without_pause_all_get_their_turn(open_store: OpenStore) -> None:
    stop, made = threading.Event(), [0, 0, 0]

    def write(number: int) -> None:
        store = open_store()
        while not stop.is_set():
            store.commit([Put(f"a/{number}", b"%d" % made[number])])
            made[number] += 1

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, number) for number in range(3)]
        try:
            within(PATIENCE, lambda: min(made) >= 5 or any(each.done() for each in writing))
        finally:
            stop.set()
        for each in writing:
            each.result(PATIENCE)
    assert open_store().read("a/").revision == sum(made)


def test_a_turn_that_nobody_uses_is_overruled(open_store: OpenStore, aws: Any, table: str) -> None:
    store, other = open_store(), open_store()
    store.commit([Put("a", b"1")])
    dead = {**records.head_item(store._client.head()), "turn": {"S": "whose process died"}}
    unfinished(aws, table, dead)
    begun = time.monotonic()
    assert other.commit([Put("a", b"2")]) == 2
    assert time.monotonic() - begun >= commits.TURN_SECONDS
    assert store.commit([Put("a", b"3")]) == 3
    assert "turn" not in item_of(aws, table, "head", "head")


def test_a_refused_commit_leaves_no_turn_behind(open_store: OpenStore, aws: Any, table: str) -> None:
    store, other = open_store(), open_store()
    store.commit([Put("a", b"1")])
    other.commit([Put("a", b"2")])
    unfinished(aws, table, {**records.head_item(store._client.head()), "turn": {"S": "whose process died"}})
    with pytest.raises(Conflict):
        store.commit([CheckOp("b", Revision(0)), CheckOp("a", Revision(1)), Put("b", b"")])
    with pytest.raises(Conflict):
        other.commit([CheckOp("a", Revision(1)), Put("b", b"")])
    assert other.commit([Put("b", b"")]) == 3
    assert "turn" not in item_of(aws, table, "head", "head")


# --- leases


def test_a_lease_whose_end_was_begun_by_a_process_that_died_is_ended_by_others(
    open_store: OpenStore, aws: Any, table: str
) -> None:
    store, other = open_store(), open_store()
    lease = store.grant(60)
    store.commit([Put("a/lock", b"", lease)])
    aws.update_item(
        TableName=table,
        Key=records.key_of("lease", lease.id),
        UpdateExpression="SET ended = :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
    )
    with pytest.raises(LeaseLost):
        lease.renew()
    seen = other.read("a/")
    assert set(seen.entries) == {"a/lock"}
    assert other.wait("a/", seen.revision, PATIENCE) > seen.revision
    assert other.read("a/").entries == {}
    within(PATIENCE, lambda: names(aws, table, "lease") == [])


def test_a_lease_with_more_keys_than_a_commit_can_delete_takes_them_all_along(
    open_store: OpenStore, aws: Any, table: str
) -> None:
    store = open_store()
    lease, living = store.grant(60), store.grant(60)
    for start in range(0, 250, 50):
        store.commit([Put(f"a/{number:03}", b"", lease) for number in range(start, start + 50)])
    store.commit([Put("a/007", b"", living), Put("a/008", b"")])
    lease.revoke()
    assert set(store.read("a/").entries) == {"a/007", "a/008"}
    assert names(aws, table, "lease") == [living.id]


def test_leases_are_as_long_as_the_looks_allow(dynamodb: str, table: str) -> None:
    store = DynamoStore(f"dynamodb://eu-central-1/{table}?endpoint={dynamodb}")
    assert store.grant(1).ttl == 10
    assert store.grant(15).ttl == 15
    store.close()
