"""The schedulers of examples/schedulers, which know Sked by its keys alone, held to the kit that others are held to."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.etcd import EtcdMember
from rigs.local import free_ports
from rigs.needs import ROOT, program
from rigs.tls import Authority, make_certificate
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


BUGS = {
    "writes one of the two keys": (
        "for key in both]",
        "for key in both[:1]]",
        "places_and_writes_whole_records",
        "not written or removed together",
    ),
    "writes the fields that it knows": (
        '"task_definition": definition,',
        '"task_definition": {key: one for key, one in definition.items() if key != "note"},',
        "places_and_writes_whole_records",
        "the definition is not whole",
    ),
    "tells nobody what has changed": (
        '("put", f"scheduling/changed/{name}", NAME)',
        '("delete", "nothing")',
        "places_and_writes_whole_records",
        "no marker",
    ),
    "takes the lock of another": (
        '[("check", lock, 0), ("bind", lock, NAME)]',
        '[("bind", lock, NAME)]',
        "leaves_a_locked_service_alone",
        "past the lock of another",
    ),
    "knows of draining hosts alone": (
        "if name in world.marks:",
        'if world.marks.get(name, {"state": ""})["state"] == "draining":',
        "leaves_a_draining_host",
        "placed on a cordoned host",
    ),
    "takes any name": (
        '"[A-Za-z0-9._-]+"',
        '".+"',
        "takes_no_word_from_strange_names",
        "name",
    ),
    "leaves the history of what is deleted": (
        '(said, under_way, asked, f"rollouts/{name}/")',
        "(said, under_way, asked)",
        "withdraws_what_is_deleted",
        "its roll-outs are left",
    ),
}


@pytest.mark.timeout(900)
def test_the_kit_finds(etcd: str, tmp_path: Path) -> None:
    bench = Bench([], etcd, tmp_path, prefix=f"outside-{secrets.token_hex(4)}", patience=300.0)
    right = (EXAMPLES / "python" / "scheduler.py").read_text()
    try:
        bench.open()
        for bug, (old, new, check, said) in BUGS.items():
            folder = tmp_path / bug.replace(" ", "-")
            shutil.copytree(EXAMPLES / "python", folder)
            assert right.count(old) == 1, bug
            (folder / "scheduler.py").write_text(right.replace(old, new))
            bench.command = [sys.executable, str(folder / "scheduler.py"), "{name}"]
            try:
                CHECKS[check](bench)
                bench.judge()
            except AssertionError as error:
                assert said in str(error), f"{bug}: {error}"
            else:
                pytest.fail(f"it does not find one that {bug}")
            bench.clear()
    finally:
        bench.close()


@pytest.mark.timeout(600)
def test_what_one_check_has_found_is_no_fault_of_the_next(etcd: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "python", tmp_path / "wrong")
    scheduler = tmp_path / "wrong" / "scheduler.py"
    right = scheduler.read_text()
    old = 'both = f"state/tasks/{id}"'
    assert right.count(old) == 1
    scheduler.write_text(right.replace(old, old + ' + "1" * (name == "noted")'))  # which the first check alone declares
    only = [f"--only={one}" for one in ("places_and_writes_whole_records", "takes_another_lease")]
    kit = [sys.executable, "-m", "sked_core.testing.outside", "--backend", etcd, "--patience", "300", *only]
    ran = subprocess.run(
        [*kit, "--", sys.executable, str(scheduler), "{name}"], capture_output=True, text=True, timeout=500, check=False
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1 and "FAIL  places and writes whole records" in said, said
    assert "does not stand under its two keys" in said or "one task, under its own id" in said, said
    assert "ok  takes another lease" in said and "1 of 2 checks have failed" in said, said
    assert "Finding(" not in said, said


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
            return json.loads(answer.read() or b"null")

    told(
        "/v1/acl/policy", {"Name": "scheduler", "Rules": (ROOT / "packaging" / "consul" / "scheduler.hcl").read_text()}
    )
    told("/v1/agent/token/default", {"Token": ""})  # it was for the rig, which has none; now nobody gets in without
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
            bench.clear()
            said = (tmp_path / f"scheduler-{number}.log").read_text()
            assert not said, f"{language}: {said}"
    finally:
        bench.close()


@pytest.mark.timeout(900)
def test_on_etcd_they_show_certificates_and_log_in_again_when_they_have_to(
    etcd_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the role that packaging/etcd/roles.sh makes, over TLS alone, to a server that asks clients who they are."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make certificates with")
    authority, (port, plain, peer) = Authority(tmp_path / "tls"), free_ports(3)
    authority.issue("server", extensions="subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    # One without a common name: with users, etcd's gateway refuses those that have one.
    authority.issue("client", extensions="extendedKeyUsage=clientAuth\n", subject="/O=outside")
    files = {name: str(authority.folder / name) for name in ("ca.pem", "server.pem", "server.key")}
    flags = {"client_cert_auth": "true", "trusted_ca_file": files["ca.pem"]}
    flags |= {"cert_file": files["server.pem"], "key_file": files["server.key"]}
    flags["listen_client_urls"] = f"https://127.0.0.1:{port},http://127.0.0.1:{plain}"  # the plain one is for the rig
    peers = {"m": f"127.0.0.1:{peer}"}
    member = EtcdMember(etcd_binary, tmp_path / "etcd", name="m", client=f"127.0.0.1:{plain}", peers=peers, flags=flags)
    control = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": f"127.0.0.1:{plain}"}
    control["PATH"] = f"{Path(etcd_binary).parent}:{os.environ['PATH']}"

    def told(*command: str | Path, stdin: str = "") -> None:
        subprocess.run(command, input=stdin, env=control, check=True, capture_output=True, text=True, timeout=60)

    member.start()
    bench = None
    try:
        told(ROOT / "packaging" / "etcd" / "roles.sh")
        for user, role in (("root", "root"), ("outsider", "sked-scheduler")):
            told("etcdctl", "user", "add", f"{user}:secret")
            told("etcdctl", "user", "grant-role", user, role)
        told("etcdctl", "auth", "enable")
        control["ETCDCTL_USER"] = "root:secret"
        monkeypatch.setenv("ETCDCTL_USER", "root:secret")
        for variable, name in (("CACERT", "ca.pem"), ("CERT", "client.pem"), ("KEY", "client.key")):
            monkeypatch.setenv(f"ETCDCTL_{variable}", str(authority.folder / name))
        env = {"ETCDCTL_USER": "outsider", "ETCDCTL_PASSWORD": "secret"}
        bench = Bench([], f"etcd://127.0.0.1:{port}", tmp_path, patience=300.0, env=env)
        bench.open()
        for number, language in enumerate(LANGUAGES):
            bench.command = [*LANGUAGES[language](), "{name}"]
            bench.settled(2)
            said = (tmp_path / f"scheduler-{number}.log").read_text()
            assert not said, f"{language}: {said}"
            told("etcdctl", "user", "passwd", "outsider", "--interactive=false", stdin="secret\n")  # its tokens end
            bench.settled(3)
            CHECKS["withdraws_what_is_deleted"](bench)
            bench.clear()
    finally:
        if bench:
            bench.close()
        member.kill()
