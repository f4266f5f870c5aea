"""An engine used plainly: transactions that were recorded and encoded beforehand, sent by as many connections as
wanted, each with a thread of its own, in as many processes as there are cores. No planning, no adapter.

Each operation of a recorded commit becomes one of the engine's own, with the same key and value; where it names a
revision, the one that the key has in this store.
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc
from engines import Engine

from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Op, Put, Store
from sked_core.model import keys
from sked_etcd import messages

LEASE_SECONDS = 600.0
Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sent:
    """``count`` transactions in ``seconds``, from the first request of any connection to the last answer.
    ``engine`` and ``clients``: seconds of processor time."""

    count: int
    seconds: float
    engine: float
    clients: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def send(engine: Engine, store: Store, shares: Sequence[Sequence[tuple[Op, ...]]]) -> Sent:
    """Send each share over a connection of its own. ``store``: a client of the engine, which holds what the commits
    were made on. Raises SystemExit if any transaction is refused."""
    entries = store.read("").entries
    scripts = []
    for share in shares:
        lease = store.grant(LEASE_SECONDS)
        scripts.append([_encoders[engine.name](ops) for ops in _translated(share, entries, lease)])
    spawn = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    processes = min(len(scripts), os.cpu_count() or 1)
    pipes, workers = [], []
    for number in range(processes):
        here, there = spawn.Pipe()
        worker = spawn.Process(target=_work, args=(engine.name, engine.address, scripts[number::processes], there))
        worker.start()
        pipes.append(here)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()  # connected
    before = engine.cpu()
    for pipe in pipes:
        pipe.send("go")
    spans = [pipe.recv() for pipe in pipes]
    spent = engine.cpu() - before
    for worker in workers:
        worker.join()
    if None in spans:
        raise SystemExit(f"{engine.name} refused one of the recorded transactions")
    seconds = max(ended for _, ended, _ in spans) - min(begun for begun, _, _ in spans)
    return Sent(sum(len(script) for script in scripts), seconds, spent, sum(cpu for _, _, cpu in spans))


def divided(commits: Iterable[tuple[Op, ...]], connections: int) -> list[list[tuple[Op, ...]]]:
    """The commits in so many shares. Those of one service stay together, in their order."""
    by_service: dict[str, list[tuple[Op, ...]]] = {}
    for ops in commits:
        lock = next(op.key for op in ops if op.key.startswith(keys.SERVICE_LOCKS))
        by_service.setdefault(lock, []).append(ops)
    services = list(by_service.values())
    return [[ops for one in services[n::connections] for ops in one] for n in range(connections)]


def _translated(
    share: Sequence[tuple[Op, ...]], entries: Mapping[str, Entry], lease: Lease
) -> Iterable[tuple[Op, ...]]:
    """The same commits with a lease and revisions of this store."""
    written: set[str] = set()

    def translate(op: Op) -> Op:
        match op:
            case Check(key, revision) if revision:
                # A revision that only comes to be while the commits are sent can't be known: the store's name, which
                # does not change, is checked instead.
                known = key if key in entries and key not in written else keys.STORE_UID
                return Check(known, entries[known].revision)
            case Put(key, value, bound) if bound is not None:
                return Put(key, value, lease)
            case Fence(key):
                return Fence(key, lease)
        return op

    for ops in share:
        yield tuple(translate(op) for op in ops)
        written |= {op.key for op in ops if isinstance(op, Put | Delete)}


def _work(name: str, address: str, scripts: Sequence[Sequence[Any]], pipe: Connection) -> None:
    """What each process does: connect, wait for the word, send everything."""
    senders = [_senders[name](address) for _ in scripts]
    with ThreadPoolExecutor(len(scripts)) as pool:
        pipe.send("connected")
        pipe.recv()
        begun, spent = time.monotonic(), time.process_time()
        accepted = all(pool.map(lambda one, script: all(map(one, script)), senders, scripts))
        pipe.send((begun, time.monotonic(), time.process_time() - spent) if accepted else None)


# --- Consul ------------------------------------------------------------------------------------------------------


def _consul_body(ops: Sequence[Op]) -> bytes:
    return json.dumps([{"KV": _consul_verb(op)} for op in ops], separators=(",", ":")).encode()


def _consul_verb(op: Op) -> dict[str, Any]:
    match op:
        case Check(key, 0):
            return {"Verb": "check-not-exists", "Key": key}
        case Check(key, revision):
            return {"Verb": "check-index", "Key": key, "Index": revision}
        case Fence(key, lease):
            return {"Verb": "check-session", "Key": key, "Session": lease.id}
        case Delete(key):
            return {"Verb": "delete", "Key": key}
        case Put(key, value, lease):
            bound = {"Verb": "lock", "Session": lease.id} if lease else {"Verb": "set"}
            return {**bound, "Key": key, "Value": base64.b64encode(value).decode()}


def _consul_sender(address: str) -> Callable[[bytes], bool]:
    connection = http.client.HTTPConnection(address)
    connection.connect()

    def one(body: bytes) -> bool:
        connection.request("PUT", "/v1/txn", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200

    return one


# --- etcd --------------------------------------------------------------------------------------------------------


def _etcd_request(ops: Sequence[Op]) -> bytes:
    return messages.txn_request([_etcd_part(op) for op in ops])


def _etcd_part(op: Op) -> bytes:
    match op:
        case Check(key, 0):
            return messages.absent(key)
        case Check(key, revision):
            return messages.unchanged(key, revision)
        case Fence(key, lease):
            return messages.bound(key, int(lease.id))
        case Delete(key):
            return messages.delete(key)
        case Put(key, value, lease):
            return messages.put(key, value, int(lease.id) if lease else 0)


def _etcd_sender(address: str) -> Callable[[bytes], bool]:
    channel = grpc.insecure_channel(address)
    grpc.channel_ready_future(channel).result(10)
    commit = channel.unary_unary(messages.TXN)
    return lambda request: messages.txn_answer(commit(request))[0]


# --- SQLite ------------------------------------------------------------------------------------------------------


def _sqlite_statements(ops: Sequence[Op]) -> tuple[list[Statement], list[Statement]]:
    """What has to find a row, and what is written then."""
    demands: list[Statement] = []
    writes: list[Statement] = []
    for op in ops:
        match op:
            case Check(key, 0):
                demands.append(("SELECT NOT EXISTS (SELECT 1 FROM entries WHERE key = ?)", (key,)))
            case Check(key, revision):
                demands.append(("SELECT 1 FROM entries WHERE key = ? AND revision = ?", (key, revision)))
            case Fence(key, lease):
                demands.append(("SELECT 1 FROM entries WHERE key = ? AND lease = ?", (key, lease.id)))
            case Delete(key):
                writes.append(("DELETE FROM entries WHERE key = ?", (key,)))
            case Put(key, value, lease):
                row = (key, value, 1 << 30, lease.id if lease else "")
                writes.append(("REPLACE INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?)", row))
    return demands, writes


def _sqlite_sender(address: str) -> Callable[[tuple[list[Statement], list[Statement]]], bool]:
    """With the settings of the embedded store, but without its triggers: nobody is told what changed."""
    db = sqlite3.connect(address, timeout=60, isolation_level=None, check_same_thread=False)
    for pragma in ("synchronous = FULL", "journal_size_limit = 16777216", "cache_size = -1024"):
        db.execute(f"PRAGMA {pragma}")
    for trigger in ("entry_deleted", "entry_inserted_by_hand", "entry_updated_by_hand"):
        db.execute(f"DROP TRIGGER IF EXISTS {trigger}")

    def one(transaction: tuple[list[Statement], list[Statement]]) -> bool:
        demands, writes = transaction
        db.execute("BEGIN IMMEDIATE")
        if not all((db.execute(*demand).fetchone() or (0,))[0] for demand in demands):
            return False
        for statement in writes:
            db.execute(*statement)
        db.execute("COMMIT")
        return True

    return one


_encoders: Mapping[str, Callable[[Sequence[Op]], Any]] = {
    "consul": _consul_body,
    "etcd": _etcd_request,
    "embedded": _sqlite_statements,
}
_senders: Mapping[str, Callable[[str], Callable[[Any], bool]]] = {
    "consul": _consul_sender,
    "etcd": _etcd_sender,
    "embedded": _sqlite_sender,
}
