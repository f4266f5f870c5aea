"""The schedulers of examples/schedulers, which know Sked by its keys alone, held to the kit that others are held to."""

from __future__ import annotations

import json
import secrets
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.local import free_ports
from rigs.needs import ROOT, program
from rigs.tls import make_certificate
from sked_core.testing.outside import CHECKS, Bench

EXAMPLES = ROOT / "examples" / "schedulers"
LANGUAGES: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, "-S", "-E", str(EXAMPLES / "python" / "scheduler.py")],  # with no package at all
    "shell": lambda: [str(EXAMPLES / "shell" / "scheduler.sh")] if program("curl") and program("jq") else [],
    "node": lambda: [program("node", "nodejs"), str(EXAMPLES / "node" / "scheduler.mjs")],
}


@pytest.fixture(params=["consul", "etcd"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=LANGUAGES)
def bench(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[Bench]:
    command = [*LANGUAGES[request.param](), "{name}"]
    made = Bench(command, url, tmp_path, prefix=f"outside-{secrets.token_hex(4)}", patience=300.0)
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(900)
def test_an_outside_scheduler_does_all_that_one_has_to(bench: Bench) -> None:
    for check in CHECKS.values():
        check(bench)
        bench.judge()


def test_they_need_no_more_rights_than_those_of_a_scheduler_and_speak_tls(
    private_consul: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the policy of packaging/consul, which Sked's own scheduler is given as well."""
    certificate, master, (port,) = make_certificate(tmp_path / "tls"), str(uuid.uuid4()), free_ports(1)
    consul = private_consul(
        primary_datacenter="dc1",
        acl={
            "enabled": True,
            "default_policy": "deny",
            "tokens": dict.fromkeys(("master", "agent", "default"), master),
        },
        ports={"https": port},
        cert_file=str(certificate.cert),
        key_file=str(certificate.key),
    )

    def told(path: str, value: Any) -> Any:
        headers = {"X-Consul-Token": master}
        request = urllib.request.Request(consul.http + path, json.dumps(value).encode(), headers, method="PUT")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    told(
        "/v1/acl/policy", {"Name": "scheduler", "Rules": (ROOT / "packaging" / "consul" / "scheduler.hcl").read_text()}
    )
    token = told("/v1/acl/token", {"Policies": [{"Name": "scheduler"}]})["SecretID"]
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", master)
    env = {"SKED_BACKEND": f"consul://127.0.0.1:{port}", "CONSUL_HTTP_SSL": "true"}
    env |= {"CONSUL_CACERT": str(certificate.cert), "CONSUL_HTTP_TOKEN": token}
    bench = Bench([], consul.url, tmp_path, patience=300.0, env=env)
    try:
        bench.open()
        for number, language in enumerate(LANGUAGES):
            bench.command = [*LANGUAGES[language](), "{name}"]
            bench.settled(2 + number)
            CHECKS["withdraws_what_is_deleted"](bench)
            (process,) = [one for one in bench.schedulers if one.poll() is None]
            process.terminate()
            process.wait(60)
            said = (tmp_path / f"scheduler-{number}.log").read_text()
            assert not said, f"{language}: {said}"
    finally:
        bench.close()
