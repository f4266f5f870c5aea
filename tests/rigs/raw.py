"""Writing to stores by their engines' own means, past all that Sked checks."""

from __future__ import annotations

import base64
import http.client
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from rigs.etcd import call

BATCH, BATCH_BYTES = 50, 400_000


def write(url: str, values: Mapping[str, bytes]) -> list[str]:
    """Put every value under its key. Returns the keys that the engine itself refuses."""
    kind, place = url.split("://", 1)
    return {"sqlite": _sqlite, "consul": _consul, "etcd": _etcd}[kind](place, values)


def remove(url: str, keys: Iterable[str]) -> None:
    kind, place = url.split("://", 1)
    keys = list(keys)
    if kind == "sqlite":
        with sqlite3.connect(place, timeout=60) as db:
            db.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])
        db.close()
    elif kind == "consul":
        connection = http.client.HTTPConnection(urlsplit(f"http://{place}").netloc, timeout=30)
        for key in keys:
            connection.request("DELETE", f"/v1/kv/{quote(key, safe='')}")
            connection.getresponse().read()
        connection.close()
    else:
        for some in _batches(keys):
            doing = [{"requestDeleteRange": {"key": _text(key.encode())}} for key in some]
            assert call(f"http://{place}", "kv/txn", 30, success=doing), "etcd refuses to delete"


def _sqlite(place: str, values: Mapping[str, bytes]) -> list[str]:
    with sqlite3.connect(place, timeout=60) as db:
        db.executemany("INSERT OR REPLACE INTO entries (key, value) VALUES (?, ?)", list(values.items()))
    db.close()
    return []


def _consul(place: str, values: Mapping[str, bytes]) -> list[str]:
    refused = []
    connection = http.client.HTTPConnection(place, timeout=30)
    for key, value in values.items():
        connection.request("PUT", f"/v1/kv/{quote(key, safe='')}", body=value)
        answer = connection.getresponse()
        if (answer.status, answer.read().strip()) != (200, b"true"):
            refused.append(key)
    connection.close()
    return refused


def _etcd(place: str, values: Mapping[str, bytes]) -> list[str]:
    for some in _batches(list(values), values):
        doing = [{"requestPut": {"key": _text(key.encode()), "value": _text(values[key])}} for key in some]
        assert call(f"http://{place}", "kv/txn", 30, success=doing), "etcd refuses to write"
    return []


def _batches(keys: list[str], values: Mapping[str, bytes] | None = None) -> Iterator[list[str]]:
    """Some at a time, as one request takes them."""
    some, size = list[str](), 0
    for key in keys:
        weight = len((values or {}).get(key, b""))
        if some and (len(some) == BATCH or size + weight > BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(key)
        size += weight
    if some:
        yield some


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
