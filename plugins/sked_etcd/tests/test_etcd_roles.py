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
    AGENTS,
    HOST,
    OTHER,
    ROLES,
    Household,
    a_report_writes_only_reports,
    an_agent_writes_only_its_own,
    credentials_are_rotated,
    ends_no_lease_of_others,
    everybody_does_what_they_may,
)
from rigs.tls import token_file
from sked_core.model import keys
from sked_etcd.store import EtcdStore

SCRIPT = Path(__file__).parents[3] / "packaging" / "etcd" / "roles.sh"
GRANTED = {role: f"sked-{role}" for role in ROLES} | {AGENTS[host]: f"sked-agent-{host}" for host in AGENTS}
GRANTED |= {"report": f"sked-report-{HOST}", "root": "root"}
SECRETS = {role: {"ETCDCTL_USER": role, "ETCDCTL_PASSWORD": "secret"} for role in GRANTED}


Run = Callable[..., None]


@pytest.fixture
def etcdctl(
    local_etcd: Callable[..., list[Any]], open_store: Callable[[str], EtcdStore], etcd_binary: str
) -> tuple[str, Run]:
    (server,) = local_etcd()
    within(60, lambda: reads(open_store(server.url)))
    tools = f"{Path(etcd_binary).parent}:{os.environ['PATH']}"
    env = os.environ | {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": server.address, "PATH": tools}

    def run(*command: str | Path, stdin: str = "") -> None:
        ran = subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"

    run(SCRIPT, HOST, OTHER)
    run(SCRIPT, HOST)  # again, as for a host that is added
    for role, granted in GRANTED.items():
        run("etcdctl", "user", "add", f"{role}:secret")
        run("etcdctl", "user", "grant-role", role, granted)
    run("etcdctl", "auth", "enable")
    env |= SECRETS["root"]
    return str(server.url), run


@pytest.fixture
def url(etcdctl: tuple[str, Run]) -> str:
    return etcdctl[0]


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


def test_users_and_passwords_are_rotated_without_a_restart(
    etcdctl: tuple[str, Run], as_role: Callable[[str], EtcdStore], tmp_path: Path
) -> None:
    url, run = etcdctl
    files = {role: token_file(tmp_path / f"{role}.user", f"{role}:secret") for role in GRANTED}
    home = Household(url, tmp_path, {role: {"SKED_ETCD_USER_FILE": str(file)} for role, file in files.items()})

    def rotate() -> None:
        for role in ROLES:  # a new password for some, a new user for others
            if role == "scheduler":
                token_file(files[role], f"{role}:another")
                run("etcdctl", "user", "passwd", role, "--interactive=false", stdin="another\n")
            else:
                run("etcdctl", "user", "add", f"{role}-2:other")
                run("etcdctl", "user", "grant-role", f"{role}-2", GRANTED[role])
                token_file(files[role], f"{role}-2:other")
                run("etcdctl", "user", "delete", role)

    try:
        credentials_are_rotated(home, tmp_path, as_role("root"), rotate)
    finally:
        home.close()


def test_an_agents_user_writes_what_is_its_hosts_and_nothing_else(as_role: Callable[[str], EtcdStore]) -> None:
    an_agent_writes_only_its_own(as_role("agent"))


def test_a_task_that_says_how_it_is_writes_nothing_but_that(as_role: Callable[[str], EtcdStore]) -> None:
    a_report_writes_only_reports(as_role("report"))


def test_an_agents_user_ends_no_lease_of_others(as_role: Callable[[str], EtcdStore]) -> None:
    ends_no_lease_of_others(as_role("agent"), as_role("scheduler"), keys.service_lock("web"))
