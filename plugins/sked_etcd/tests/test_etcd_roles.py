"""The roles that packaging/etcd/roles.sh makes are enough for Sked's processes and people, and give no more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.clients import reads, within
from rigs.roles import (
    HOST,
    OTHER,
    ROLES,
    Household,
    an_agent_writes_nothing_of_another_host,
    everybody_does_what_they_may,
)
from sked_etcd.store import EtcdStore

SCRIPT = Path(__file__).parents[3] / "packaging" / "etcd" / "roles.sh"
SECRETS = {role: {"ETCDCTL_USER": role, "ETCDCTL_PASSWORD": "secret"} for role in (*ROLES, "root")}


@pytest.fixture
def url(local_etcd: Callable[..., list[Any]], open_store: Callable[[str], EtcdStore], etcd_binary: str) -> str:
    (server,) = local_etcd()
    within(20, lambda: reads(open_store(server.url)))
    tools = f"{Path(etcd_binary).parent}:{os.environ['PATH']}"
    env = os.environ | {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": server.address, "PATH": tools}

    def run(*command: str | Path) -> None:
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"

    run(SCRIPT, HOST, OTHER)
    run(SCRIPT, HOST)  # again, as for a host that is added
    for role in ROLES:
        run("etcdctl", "user", "add", f"{role}:secret")
        run("etcdctl", "user", "grant-role", role, f"sked-agent-{HOST}" if role == "agent" else f"sked-{role}")
    run("etcdctl", "user", "add", "root:secret")
    run("etcdctl", "user", "grant-role", "root", "root")
    run("etcdctl", "auth", "enable")
    return str(server.url)


@pytest.fixture
def as_role(
    monkeypatch: pytest.MonkeyPatch, url: str, open_store: Callable[[str], EtcdStore]
) -> Callable[[str], EtcdStore]:
    def opened(role: str) -> EtcdStore:
        for name, value in SECRETS[role].items():
            monkeypatch.setenv(name, value)
        return open_store(url)

    return opened


@pytest.fixture
def home(url: str, tmp_path: Path) -> Iterator[Household]:
    household = Household(url, tmp_path, SECRETS)
    yield household
    household.close()


def test_an_agent_a_scheduler_and_people(home: Household, as_role: Callable[[str], EtcdStore], tmp_path: Path) -> None:
    everybody_does_what_they_may(home, tmp_path, as_role("root"))


def test_an_agent_has_no_rights_of_a_host_whose_name_begins_like_its_own(as_role: Callable[[str], EtcdStore]) -> None:
    an_agent_writes_nothing_of_another_host(as_role("agent"))
