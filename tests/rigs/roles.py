"""Sked's processes and people, each with no more rights in the store than the files of packaging/ give them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigs import forked
from rigs.local import free_ports
from rigs.tls import token_file
from sked_core.errors import Conflict, Denied
from sked_core.interfaces.store import Check, Put, Revision, Store
from sked_core.model import keys

HOST, OTHER = "web-1", "web-10"
DENIED = 7
ROLES = ("agent", "scheduler", "viewer", "people", "operator")
AGENTS = {HOST: "agent", OTHER: "other"}
"""Who each host's agent is: the second one's name begins with the first one's."""
PATIENCE = 120.0


def manifest(
    start: str, name: str, cluster: str, *, version: int = 1, desired: int = 2, beside: Collection[str] = ()
) -> str:
    container = {"name": name, "type": "bash", "executor": {"start": start}}
    definition = {"name": name, "version": version, "containers": [container]}
    update = {"healthy_for": "1s", "on_failure": "pause"}
    service = {"name": name, "task_name": name, "task_version": version, "desired": desired, "update": update}
    service |= {"min": 0, "max": desired + 2}
    cluster_ = {"name": cluster, "services": sorted({name, *beside})}
    return json.dumps({"clusters": [cluster_], "services": [service], "task_definitions": [definition]})


class Household:
    """``secrets``: variables that make a process one of ROLES, ``other`` or ``report``, by role."""

    def __init__(self, url: str, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        self._url, self._folder, self._secrets = url, folder, secrets
        self.running: dict[str, forked.Process] = {}

    def sked(self, role: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return forked.sked(["--backend", self._url, *arguments], env=self._env(role), stdin=stdin, timeout=120)

    def done(self, role: str, *arguments: str, stdin: str = "") -> str:
        """What a command says that has to work."""
        ran = self.sked(role, *arguments, stdin=stdin)
        assert ran.returncode == 0, f"{role}: sked {' '.join(arguments)}: {ran.stdout}{ran.stderr}{self.logs()}"
        return ran.stdout

    def start(self, role: str, *arguments: str) -> None:
        with (self._folder / f"{role}.log").open("ab") as log:
            self.running[role] = forked.start(["--backend", self._url, *arguments], env=self._env(role), out=log)

    def agent(self, host: str) -> None:
        state = self._folder / f"state-{host}"
        self.start(
            AGENTS[host], "run", "agent", "--host", host, "--state-dir", str(state), "--allow-cluster", "default"
        )

    def kill(self, role: str) -> None:
        process = self.running.pop(role)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    def close(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(60)

    def _env(self, role: str) -> dict[str, str]:
        return {**os.environ, "SKED_POLICY": "development", **self._secrets[role]}

    def logs(self) -> str:
        return "".join(f"\n--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self._folder.glob("*.log")))

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := holds()):
            assert time.monotonic() < deadline, f"never: {what}{self.logs()}"
            time.sleep(0.2)
        return found

    def tasks(self, service: str) -> list[dict[str, Any]]:
        listed = self.sked("viewer", "tasks", "--by-service", service, "-o", "json")
        return json.loads(listed.stdout)["items"] if listed.returncode == 0 else []

    def well(self, service: str, count: int, version: int = 1, hosts: tuple[str, ...] = (HOST, OTHER)) -> list[str]:
        """The ids of its tasks once they are ``count`` healthy ones of the version on ``hosts``; else none."""
        found = self.tasks(service)
        right = all(
            one["healthy"] and one["task_definition"]["version"] == version and one["host"] in hosts for one in found
        )
        return [one["id"] for one in found] if right and len(found) == count else []

    def complaints(self) -> list[str]:
        """Lines of the logs of processes that tell of rights which lack."""
        said = re.compile("denied|permission|forbidden|not allowed", re.IGNORECASE)
        return [
            line for log in self._folder.glob("*.log") for line in log.read_text().splitlines() if said.search(line)
        ]


def everybody_does_what_they_may(home: Household, folder: Path, store: Store) -> None:
    """A whole life of some services, in which everybody has a role of their own. ``store``: as somebody who may read
    everything."""
    home.start("scheduler", "run", "scheduler", "--lost-after", "3s")
    home.until("the store has its id", lambda: store.read(keys.STORE_UID).entries)
    for host in AGENTS:
        home.agent(host)
    home.until("two hosts", lambda: len(store.read(keys.LIVE).entries) == 2)
    (port,) = free_ports(1)
    home.start("viewer", "web", "--listen", f"127.0.0.1:{port}")

    said = manifest("echo here I am; exec sleep 600", "well", "default")
    for who in ("viewer", "scheduler", "agent"):
        refused = home.sked(who, "apply", "-f", "-", stdin=said)
        assert refused.returncode == DENIED, f"{who}: {refused.stderr}"
    home.done("people", "apply", "-f", "-", stdin=said)
    home.done("people", "apply", "-f", "-", stdin=manifest("exit 3", "closed", "elsewhere", desired=1))
    home.done(
        "people", "apply", "-f", "-", stdin=manifest("echo so; exit 3", "ill", "default", desired=1, beside=["well"])
    )
    home.until("two that are well", lambda: home.well("well", 2))
    home.until("a failure", lambda: store.read(keys.FAILURES).entries)
    home.until("the evidence of it", lambda: any(store.read(keys.endings(host)).entries for host in AGENTS))
    home.until("rejected by policy", lambda: "takes no tasks of cluster" in home.done("viewer", "events"))
    for name in ("ill", "closed"):
        home.done("people", "delete", f"service/{name}", "--cascade", "-y")

    home.done("people", "apply", "-f", "-", stdin=manifest("echo again; exec sleep 600", "well", "default", version=2))
    home.until("rolled out", lambda: home.well("well", 2, 2))
    first, _ = home.well("well", 2, 2)
    assert "again" in home.done("people", "logs", first)
    assert home.done("people", "exec", first, "--", "echo", "inside").strip() == "inside"
    assert home.sked("people", "stop", first, "-y").returncode == DENIED, "it takes state/"
    home.done("operator", "restart", first, "--wait")

    home.done("people", "drain", HOST, "--force", "--why", "x", "--wait")
    home.until("all on the other one", lambda: home.well("well", 2, 2, (OTHER,)))
    home.done("people", "uncordon", HOST)
    home.until("it takes part", lambda: not store.read(keys.MARKS).entries)
    home.done("people", "rebalance", "--apply", "--wait")
    spread = home.until("spread", lambda: home.well("well", 2, 2))
    home.until("one on each", lambda: {one["host"] for one in home.tasks("well")} == set(AGENTS))
    home.done("operator", "stop", spread[0], "-y")
    home.until("replaced", lambda: home.well("well", 2, 2))

    home.kill("other")
    home.until("replaced where an agent lives", lambda: home.well("well", 2, 2, (HOST,)))
    home.agent(OTHER)
    home.until("it is back", lambda: keys.live(OTHER) in store.read(keys.LIVE).entries)
    for command in (["status"], ["services"], ["events"], ["hosts"], ["state", "check"], ["explain", "well"]):
        home.done("viewer", *command)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/tasks", timeout=20) as answer:
        assert len(json.load(answer)["items"]) == 2
    assert home.sked("scheduler", "cordon", HOST).returncode == DENIED
    home.done("people", "scale", "well", "0")
    home.done("people", "delete", "service/well", "--cascade", "-y")
    home.until("all is gone", lambda: not store.read(keys.STATE).entries)
    assert not home.complaints(), home.logs()


def an_agent_writes_only_its_own(store: Store) -> None:
    """``store``: as the agent of HOST, whose name OTHER begins with."""
    task = "default-web-1-0"
    theirs = [
        keys.host(OTHER),
        keys.live(OTHER),
        keys.agent(OTHER),
        keys.host_task(OTHER, task),
        keys.ending(OTHER, 0),
        keys.health(OTHER, task),
        keys.report(OTHER, task),
        keys.cluster("web"),
        keys.service("web"),
        keys.task_definition("web", 1),
        keys.STORE_UID,
        keys.mark(HOST),
        keys.service_lock("web"),
        keys.service_status("web"),
        keys.scheduler("one"),
        keys.rollout("web"),
        keys.moves("web"),
        keys.ended_rollout("web", 1),
        keys.decision("web", 1),
    ]
    for key in theirs:
        with pytest.raises(Denied):
            store.commit([Put(key, b"{}")])
    never = Revision(2**40)
    for key in (keys.host(HOST), keys.host_task(HOST, task), keys.task(task), keys.ending(HOST, 0)):
        with pytest.raises(Conflict):  # it gets as far as to be compared
            store.commit([Check(key, never), Put(key, b"{}")])


def a_report_writes_only_reports(store: Store) -> None:
    """``store``: as a task of HOST that says how it is."""
    for key in (
        keys.report(OTHER, "default-web-1-0"),
        keys.task("default-web-1-0"),
        keys.host(HOST),
        keys.service("web"),
    ):
        with pytest.raises(Denied):
            store.commit([Put(key, b"{}")])
    store.commit([Put(keys.report(HOST, "default-web-1-0"), b"{}")])


def ends_no_lease_of_others(thief: Store, owner: Store, key: str) -> None:
    """``thief`` has got to know the lease of ``owner`` under which ``key`` stands."""
    lease = owner.grant(30)
    owner.commit([Put(key, b"mine", lease)])
    stolen: Any = replace(lease, client=thief._client)  # type: ignore[attr-defined, type-var]
    with pytest.raises(Denied):
        stolen.revoke()
    assert owner.read(key).entries[key].value == b"mine"
    lease.revoke()


def credentials_are_rotated(home: Household, folder: Path, store: Store, rotate: Callable[[], None]) -> None:
    """An agent, a scheduler and the page, each with its credentials in a file, go on when others stand there and the
    former ones are gone, which is what ``rotate`` does; nothing is restarted. ``store``: as for the life above."""
    home.start("scheduler", "run", "scheduler")
    home.until("the store has its id", lambda: store.read(keys.STORE_UID).entries)
    home.agent(HOST)
    home.until("a host", lambda: store.read(keys.LIVE).entries)
    (port,) = free_ports(1)
    tokens = folder / "web.tokens"
    former, latter = "the-former-token-of-tests", "the-latter-token-of-tests"
    token_file(tokens, f"people read {former}")
    home.start("viewer", "web", "--listen", f"127.0.0.1:{port}", "--tokens", str(tokens))

    def listed(token: str) -> list[str] | int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/tasks", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return sorted(one["id"] for one in json.load(answer)["items"])
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    home.done(
        "people", "apply", "-f", "-", stdin=manifest("echo I began; exec sleep 600", "kept", "default", desired=1)
    )
    kept = home.until("it is well", lambda: home.well("kept", 1))
    home.until("the page has it", lambda: listed(former) == kept)

    rotate()
    token_file(tokens, f"people read {latter}")
    home.done(
        "people", "apply", "-f", "-", stdin=manifest("exec sleep 600", "later", "default", desired=1, beside=["kept"])
    )
    later = home.until("a change is carried out", lambda: home.well("later", 1))
    home.until("the page goes on", lambda: listed(latter) == sorted([*kept, *later]))
    home.until("its own former token is no good", lambda: listed(former) == 401)
    assert home.done("people", "logs", kept[0]).count("I began") == 1
    for name in ("kept", "later"):
        home.done("people", "delete", f"service/{name}", "--cascade", "-y")
    home.until("all is gone", lambda: not store.read(keys.STATE).entries)
    assert all(process.poll() is None for process in home.running.values())
    assert not home.complaints(), home.logs()
