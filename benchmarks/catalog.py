"""Consul's catalog as the Consul agents of many machines would fill it: one node a host, its tasks as services."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sked_core.model.types import Host, Task

A_TRANSACTION = 60
"""Operations: Consul takes 64."""


class Catalog:
    """``address``: host and port of Consul."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)

    def nodes(self, hosts: Sequence[Host]) -> None:
        """Every host as a node."""
        self._send([{"Node": {"Verb": "set", "Node": {"Node": one.name, "Address": one.address}}} for one in hosts])

    def passing(self, tasks: Sequence[Task]) -> None:
        """Every task as a service of its host whose check passes."""
        self._send([operation for task in tasks for operation in _operations(task)])

    def _send(self, operations: list[dict[str, Any]]) -> None:
        for part in _parts(operations):
            self._connection.request("PUT", "/v1/txn", json.dumps(part))
            answer = self._connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise SystemExit(f"Consul's catalog: {answer.status} {said[:300]!r}")


def _operations(task: Task) -> Iterator[dict[str, Any]]:
    name = f"{task.cluster.name}-{task.service}"
    service = {"ID": task.id, "Service": name, "Port": task.port, "Meta": {"sked": task.host}}
    yield {"Service": {"Verb": "set", "Node": task.host, "Service": service}}
    check = {
        "Node": task.host,
        "CheckID": f"service:{task.id}",
        "Name": "http",
        "Status": "passing",
        "ServiceID": task.id,
        "ServiceName": name,
    }
    yield {"Check": {"Verb": "set", "Check": check}}


def _parts(operations: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(operations), A_TRANSACTION):
        yield operations[start : start + A_TRANSACTION]
