"""``sked doctor`` on real stores and engines: rights that lack, tokens that are wrong, quotas that are used up."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.etcd import call
from sked_core.errors import SkedError
from sked_core.interfaces.store import Put
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

Diagnose = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def diagnosed(sked) -> Diagnose:
    """What ``sked doctor`` says of the store at a URL, by check."""

    def look(url: str) -> dict[str, dict[str, str]]:
        ran = sked("--backend", url, "doctor", "-o", "json")
        return {item["check"]: item for item in json.loads(ran.out)["items"]}

    return look


@pytest.fixture
def guarded(private_consul) -> Any:
    """A Consul with access control that denies what no policy allows; ``(url, root token, token_for(rules))``."""
    root = str(uuid.uuid4())
    # "allow" while it starts, so that its readiness can be asked for; the anonymous token is then denied everything.
    server = private_consul(
        primary_datacenter="dc1", acl={"enabled": True, "default_policy": "allow", "tokens": {"master": root}}
    )

    def ask(path: str, value: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.http + path, data=json.dumps(value).encode(), method="PUT", headers={"X-Consul-Token": root}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    def token_for(rules: str) -> str:
        name = f"p-{uuid.uuid4().hex[:8]}"
        ask("/v1/acl/policy", {"Name": name, "Rules": rules})
        return str(ask("/v1/acl/token", {"Policies": [{"Name": name}]})["SecretID"])

    return server.url, root, token_for


DENY = 'key_prefix "" { policy = "deny" }'
READ = 'key_prefix "" { policy = "read" }'
PEOPLE = READ + "".join(
    f'key_prefix "{prefix}" {{ policy = "write" }}'
    for prefix in (
        "config/",
        "hosts/marks/",
        "scheduling/rollouts/",
        "scheduling/moves/",
        "rollouts/",
        "events/",
        "meta/",
    )
)


def test_rights_that_lack_are_told_and_those_of_a_role_suffice(guarded, diagnosed, monkeypatch) -> None:
    url, root, token_for = guarded
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", root)
    assert diagnosed(url)["rights"]["state"] == "ok"
    store = open_store(url, Plugins.load())
    before = dict(store.read("").entries)
    store.close()
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", token_for(PEOPLE))
    assert diagnosed(url)["rights"]["state"] == "ok"
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", token_for(READ))
    found = diagnosed(url)
    assert found["store"]["state"] == "ok" and found["rights"]["state"] == "fault"
    assert "is enough for no role" in found["rights"]["what"] and "may not write" in found["rights"]["what"]
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", token_for(DENY))
    found = diagnosed(url)
    assert found["rights"]["state"] == "fault" and "may not read" in found["rights"]["what"]
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", root)
    store = open_store(url, Plugins.load())
    assert dict(store.read("").entries) == before, "nothing is written to find out what may be"
    store.close()


def test_a_token_that_nobody_knows_is_a_fault(guarded, diagnosed, monkeypatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", str(uuid.uuid4()))
    found = diagnosed(guarded[0])
    assert "fault" in {found["store"]["state"], found["rights"]["state"]}


def test_a_consul_that_is_paused_is_a_fault_within_seconds(private_consul, diagnosed) -> None:
    server = private_consul()
    assert diagnosed(server.url)["store"]["state"] == "ok"
    server.pause()
    try:
        assert diagnosed(server.url)["store"]["state"] == "fault"
    finally:
        server.resume()


def test_an_etcd_that_nobody_compacts_and_one_that_is_nearly_full_are_faults(
    private_etcd, diagnosed, monkeypatch
) -> None:
    monkeypatch.setattr("sked_etcd.doubts.OLD_REVISIONS", 20)
    server = private_etcd(quota_backend_bytes=2_000_000)
    assert diagnosed(server.url)["engine-of-store"]["state"] == "ok"
    store = open_store(server.url, Plugins.load())
    for _ in range(30):
        store.commit([Put("x", b"y")])
    assert "never compacted" in diagnosed(server.url)["engine-of-store"]["what"]
    call(server.http, "kv/compaction", revision="25")
    assert diagnosed(server.url)["engine-of-store"]["state"] == "ok"
    # etcd compares its quota with what it wrote a moment ago, and raises the alarm in its own time.
    for _ in range(1000):
        with contextlib.suppress(SkedError):  # in the end it takes no more
            store.commit([Put("big", os.urandom(120_000))])
        if (found := diagnosed(server.url)["engine-of-store"])["state"] == "fault":
            break
    assert found["state"] == "fault" and "quota" in found["what"] and "compact" in found["remedy"]
    store.close()


@pytest.mark.parametrize("name", ["consul", "etcd"])
def test_a_store_that_lets_anybody_in_is_a_fault_where_others_reach_it(name, request, diagnosed, monkeypatch) -> None:
    url = request.getfixturevalue(name)
    assert diagnosed(url)["engine-of-store"]["state"] == "ok"
    monkeypatch.setattr(f"sked_{name}.exposure.beyond_this_machine", lambda host: True)
    found = diagnosed(url)["engine-of-store"]
    assert found["state"] == "fault" and "WITHOUT A" in found["what"] and "docs/installing.md" in found["remedy"]


def test_a_consul_agent_of_another_machine_is_a_fault(diagnosed, consul) -> None:
    assert diagnosed(consul)["engine-of-store"]["state"] == "ok"
    found = diagnosed("consul://192.0.2.1:8500")["engine-of-store"]  # TEST-NET-1 (RFC 5737): nobody's
    assert found["state"] == "fault" and "is not one of this machine" in found["what"]
    assert "consul://127.0.0.1:8500" in found["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_an_engine_that_this_user_may_not_use_is_a_fault() -> None:
    """The socket is there and somebody listens, but only root may connect."""
    script = """
import os, socket, sys
from pathlib import Path
from sked_core.client.doctor import CHECKS, Exam, examine
from sked_core.client.settings import resolve
os.environ["DOCKER_HOST"] = "unix:///nobody/there"
examine(Exam(resolve()), [c for c in CHECKS if c.name == "engines"], seconds=60)  # imports what others may not read
path = sys.argv[1] + "/docker.sock"
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen(); os.chmod(path, 0o600)
os.environ["DOCKER_HOST"] = "unix://" + path
os.environ.pop("DOCKER_CONTEXT", None)
exam = Exam(resolve()); exam.plugins(); os.chdir("/")
os.seteuid(12345)
(one,) = [r for r in examine(exam, [c for c in CHECKS if c.name == "engines"], seconds=60) if "docker" in r.what]
print(one.state, one.what, one.remedy)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        ran = subprocess.run(
            [sys.executable, "-c", script, folder],
            capture_output=True,
            text=True,
            timeout=90,
            env=os.environ | {"HOME": folder},
        )
    assert ran.stdout.startswith("fault executor docker"), ran.stdout + ran.stderr
    assert "ermission" in ran.stdout
