"""How a monitor looks: at the store over its own HTTP interface, at the engine's socket, at /proc."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from campaign.samples import Instance, Stored

MARK, HOST = b"SKED_MARK=", b"SKED_HOST="
YOUNG_TICKS = 300
"""A process so young (3 s) may still be between fork and exec: its environment is read again."""
LISTENS, ESTABLISHED = "0A", "01"


class StoreEyes:
    """Reads all of one store at one revision. ``url`` as Sked takes it, of one server."""

    def __init__(self, url: str, timeout: float = 2.0) -> None:
        kind, _, address = url.partition("://")
        self._consul, self._timeout = kind == "consul", timeout
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def read(self) -> tuple[dict[str, Stored], int] | None:
        """All keys and the revision; None for no good answer, and the same for a store that has no leader."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            return self._read_consul() if self._consul else self._read_etcd()
        self._close()
        return None

    def leases(self) -> tuple[int, dict[str, float]] | None:
        """How many there are, and the seconds since each was renewed where the store says that."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            if self._consul:
                return len(json.loads(self._ask("GET", "/v1/session/list")[0])), {}
            listed = self._call("lease/leases").get("leases", [])
            ages = {}
            for one in listed:
                told = self._call("lease/timetolive", ID=one["ID"])
                ages[one["ID"]] = float(int(told.get("grantedTTL", 0)) - int(told.get("TTL", 0)))
            return len(listed), ages
        self._close()
        return None

    def _read_consul(self) -> tuple[dict[str, Stored], int]:
        body, headers = self._ask("GET", "/v1/kv/?recurse&consistent", allow=(200, 404))
        revision = int(headers["X-Consul-Index"])
        found = json.loads(body) if headers["status"] == "200" else []
        return {
            one["Key"]: Stored(
                base64.b64decode(one["Value"] or ""), one["ModifyIndex"], one["CreateIndex"], one.get("Session", "")
            )
            for one in found
        }, revision

    def _read_etcd(self) -> tuple[dict[str, Stored], int]:
        everything = {"key": "AA==", "range_end": "AA=="}
        told = self._call("kv/range", **everything)
        return {
            base64.b64decode(one["key"]).decode("utf-8", "replace"): Stored(
                base64.b64decode(one.get("value", "")),
                int(one["mod_revision"]),
                int(one["create_revision"]),
                one.get("lease", ""),
            )
            for one in told.get("kvs", [])
        }, int(told["header"]["revision"])

    def _call(self, method: str, **fields: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask("POST", f"/v3/{method}", json.dumps(fields))[0])
        return found

    def _ask(
        self, method: str, path: str, body: str | None = None, allow: tuple[int, ...] = (200,)
    ) -> tuple[bytes, dict[str, str]]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in allow:
            raise ValueError(f"{answer.status}: {content[:200]!r}")
        return content, {**dict(answer.headers), "status": str(answer.status)}

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class EngineEyes:
    """``docker ps -a`` of the containers that bear Sked's labels, of hosts that end with ``ending``."""

    def __init__(self, path: str, ending: str, timeout: float = 2.0) -> None:
        self._path, self._ending, self._timeout = path, ending, timeout

    def look(self) -> tuple[set[Instance], set[Instance], set[str]] | None:
        """What runs, what does not, and the ids of all containers, others' among them; None for no answer."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            connection = _Unix(self._path, self._timeout)
            try:
                connection.request("GET", "/containers/json?" + urllib.parse.urlencode({"all": 1}))
                answer = connection.getresponse()
                listed = json.loads(answer.read())
            finally:
                connection.close()
            if answer.status != 200:
                return None
            running: set[Instance] = set()
            ended: set[Instance] = set()
            for one in listed:
                host, task, container = (
                    one["Labels"].get(f"sked.{part}", "") for part in ("host", "task", "container")
                )
                if host.endswith(self._ending):
                    (running if one["State"] in ("running", "paused") else ended).add(
                        Instance(host, task, container, one["Id"])
                    )
            return running, ended, {one["Id"] for one in listed}
        return None


class ProcEyes:
    """Finds processes that bear a mark of the bash executor, of hosts that end with ``ending``."""

    def __init__(self, ending: str) -> None:
        self._ending = ending.encode()
        self._known: dict[tuple[int, int], tuple[str, str] | None] = {}

    def look(self) -> set[Instance]:
        """Zombies do not count: what has ended only waits to be counted."""
        alive: dict[tuple[int, int], tuple[str, str] | None] = {}
        with open("/proc/uptime") as file:
            now = int(float(file.read().split()[0]) * os.sysconf("SC_CLK_TCK"))
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            status = _stat(int(name))
            if status is None or status[0] in "ZX":
                continue
            identity = (int(name), status[1])
            known = self._known.get(identity)
            if known is None and (identity not in self._known or now - status[1] < YOUNG_TICKS):
                known = self._marks(identity[0])
            alive[identity] = known
        self._known = alive
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for (pid, started), known in alive.items():
            if known is not None:
                first = found.get(known)
                found[known] = min([each for each in (first, (pid, started)) if each], key=lambda one: (one[1], one[0]))
        return {Instance(host, *mark.split("/")[1:3], mark=mark, first=first) for (host, mark), first in found.items()}

    def _marks(self, pid: int) -> tuple[str, str] | None:
        """Host and mark of a process, if it has both."""
        with contextlib.suppress(OSError):
            parts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            host = next((part[len(HOST) :] for part in parts if part.startswith(HOST)), b"")
            mark = next((part[len(MARK) :] for part in parts if part.startswith(MARK)), b"").decode()
            if mark.count("/") == 4 and host.endswith(self._ending) and not mark.startswith("command."):
                return host.decode(), mark
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time in ticks."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    return None


def alive(identities: Iterable[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Those that still run."""
    return frozenset(one for one in identities if (told := _stat(one[0])) and told[1] == one[1] and told[0] not in "ZX")


def identity(pid: int) -> tuple[int, int]:
    told = _stat(pid)
    return pid, told[1] if told else 0


def sockets(processes: Mapping[str, int], port: int) -> tuple[dict[str, int], frozenset[int]]:
    """How many connections to ``port`` each process has, and the ports that somebody listens on here."""
    to_store: set[str] = set()
    listening: set[int] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENS:
                    listening.add(int(fields[1].rpartition(":")[2], 16))
                elif fields[3] == ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port:
                    to_store.add(fields[9])
    found = {}
    for name, pid in processes.items():
        count = 0
        with contextlib.suppress(OSError):
            for each in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    link = os.readlink(f"/proc/{pid}/fd/{each}")
                    count += link.startswith("socket:[") and link[8:-1] in to_store
        found[name] = count
    return found, frozenset(listening)
