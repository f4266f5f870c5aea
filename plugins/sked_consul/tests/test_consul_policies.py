"""The policies of packaging/consul are enough for Sked's processes and people, and give no more."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.clients import opening
from rigs.roles import (
    AGENTS,
    HOST,
    OTHER,
    ROLES,
    Household,
    an_agent_writes_only_its_own,
    credentials_are_rotated,
    ends_no_lease_of_others,
    everybody_does_what_they_may,
)
from rigs.tls import token_file
from sked_consul.store import ConsulStore
from sked_core.model import keys

POLICIES = Path(__file__).parents[3] / "packaging" / "consul"
ROOT = "root"


class Guarded:
    """Consul that allows nobody anything but by these files. ``given``: the token of each role; ``consul``: itself."""

    def __init__(self, consul: Any, master: str) -> None:
        self.consul, self._master = consul, master
        agent = (POLICIES / "agent.hcl").read_text()
        of_cluster = agent.replace('service_prefix "" ', 'service_prefix "default-" ')  # as it says there
        rules = {role: (POLICIES / f"{role}.hcl").read_text() for role in ROLES[1:]}
        rules |= {AGENTS[host]: of_cluster.replace("HOST", host).replace("NODE", "sked-test") for host in AGENTS}
        rules["elsewhere"] = agent.replace("HOST", OTHER).replace("NODE", OTHER)
        for role, text in rules.items():
            self._ask("PUT", "/v1/acl/policy", {"Name": role, "Rules": text})
        self.given = {ROOT: master} | {role: self.token(role) for role in rules}

    def token(self, role: str) -> str:
        """A new one."""
        return str(self._ask("PUT", "/v1/acl/token", {"Policies": [{"Name": role}]})["SecretID"])

    def forget(self, tokens: Collection[str]) -> None:
        """Delete them."""
        for one in self._ask("GET", "/v1/acl/tokens"):
            if self._ask("GET", f"/v1/acl/token/{one['AccessorID']}")["SecretID"] in tokens:
                self._ask("DELETE", f"/v1/acl/token/{one['AccessorID']}")

    def _ask(self, method: str, path: str, value: Any = None) -> Any:
        data = json.dumps(value).encode() if value is not None else None
        request = urllib.request.Request(
            self.consul.http + path, data=data, method=method, headers={"X-Consul-Token": self._master}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.fixture
def server(private_consul: Callable[..., Any]) -> Guarded:
    master = str(uuid.uuid4())
    # Without a token: what asks here whether the server is ready.
    tokens = {"master": master, "agent": master, "default": master}
    return Guarded(
        private_consul(primary_datacenter="dc1", acl={"enabled": True, "default_policy": "deny", "tokens": tokens}),
        master,
    )


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch, server: Guarded) -> Iterator[Callable[[str], Any]]:
    with opening(ConsulStore) as open_one:

        def opened(role: str) -> Any:
            monkeypatch.setenv("CONSUL_HTTP_TOKEN", server.given[role])
            return open_one(server.consul.url)

        yield opened


@pytest.fixture
def home(server: Guarded, tmp_path: Path) -> Iterator[Household]:
    household = Household(server.consul.url, tmp_path, {r: {"CONSUL_HTTP_TOKEN": t} for r, t in server.given.items()})
    yield household
    household.close()


def test_there_is_a_policy_for_each_role() -> None:
    assert {path.stem for path in POLICIES.glob("*.hcl")} == set(ROLES)


def test_an_agent_a_scheduler_and_people(home: Household, as_role: Callable[[str], Any], tmp_path: Path) -> None:
    everybody_does_what_they_may(home, tmp_path, as_role(ROOT))


def test_tokens_are_rotated_without_a_restart(server: Guarded, as_role: Callable[[str], Any], tmp_path: Path) -> None:
    files = {role: token_file(tmp_path / f"{role}.token", token) for role, token in server.given.items()}
    home = Household(server.consul.url, tmp_path, {r: {"CONSUL_HTTP_TOKEN_FILE": str(f)} for r, f in files.items()})

    def rotate() -> None:
        for role in ROLES:
            token_file(files[role], server.token(role))
        server.forget([server.given[role] for role in ROLES])

    try:
        credentials_are_rotated(home, tmp_path, as_role(ROOT), rotate)
    finally:
        home.close()


def test_an_agents_token_writes_what_is_its_hosts_and_nothing_else(as_role: Callable[[str], Any]) -> None:
    an_agent_writes_only_its_own(as_role("agent"))


def test_an_agents_token_ends_no_lease_that_was_got_from_another_machines_consul(as_role: Callable[[str], Any]) -> None:
    ends_no_lease_of_others(as_role("elsewhere"), as_role("scheduler"), keys.service_lock("web"))


def test_an_agent_before_everybody_else_waits_and_says_for_what(
    home: Household, as_role: Callable[[str], Any], tmp_path: Path
) -> None:
    home.agent(HOST)
    home.until("it waits", lambda: "waiting: the store has no id yet" in home.logs())
    home.start("scheduler", "run", "scheduler")
    home.until("it lives", lambda: as_role(ROOT).read(keys.LIVE).entries)
