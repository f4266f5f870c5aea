"""The policies of packaging/consul are enough for Sked's processes and people, and give no more."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.clients import opening
from rigs.roles import HOST, ROLES, Household, an_agent_writes_nothing_of_another_host, everybody_does_what_they_may
from sked_consul.store import ConsulStore

POLICIES = Path(__file__).parents[3] / "packaging" / "consul"
ROOT = "root"


@pytest.fixture
def server(private_consul: Callable[..., Any]) -> tuple[Any, dict[str, str]]:
    """Consul that allows nobody anything but by these files, and the token of each role."""
    master = str(uuid.uuid4())
    # Without a token: what asks here whether the server is ready.
    tokens = {"master": master, "agent": master, "default": master}
    server = private_consul(primary_datacenter="dc1", acl={"enabled": True, "default_policy": "deny", "tokens": tokens})

    def put(path: str, value: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.http + path, data=json.dumps(value).encode(), method="PUT", headers={"X-Consul-Token": master}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())

    given = {ROOT: master}
    for role in ROLES:
        rules = (POLICIES / f"{role}.hcl").read_text().replace("HOST", HOST)
        put("/v1/acl/policy", {"Name": role, "Rules": rules})
        given[role] = put("/v1/acl/token", {"Policies": [{"Name": role}]})["SecretID"]
    return server, given


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch, server: tuple[Any, dict[str, str]]) -> Iterator[Callable[[str], Any]]:
    with opening(ConsulStore) as open_one:

        def opened(role: str) -> Any:
            monkeypatch.setenv("CONSUL_HTTP_TOKEN", server[1][role])
            return open_one(server[0].url)

        yield opened


@pytest.fixture
def home(server: tuple[Any, dict[str, str]], tmp_path: Path) -> Iterator[Household]:
    household = Household(server[0].url, tmp_path, {r: {"CONSUL_HTTP_TOKEN": t} for r, t in server[1].items()})
    yield household
    household.close()


def test_there_is_a_policy_for_each_role() -> None:
    assert {path.stem for path in POLICIES.glob("*.hcl")} == set(ROLES)


def test_an_agent_a_scheduler_and_people(home: Household, as_role: Callable[[str], Any], tmp_path: Path) -> None:
    everybody_does_what_they_may(home, tmp_path, as_role(ROOT))


def test_an_agent_has_no_rights_of_a_host_whose_name_begins_like_its_own(as_role: Callable[[str], Any]) -> None:
    an_agent_writes_nothing_of_another_host(as_role("agent"))
