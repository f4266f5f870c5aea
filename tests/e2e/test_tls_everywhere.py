"""TLS on every connection at once, and another authority in the place of the first one while all of it runs."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.etcd import EtcdMember
from rigs.local import Server, free_ports
from rigs.roles import HOST, ROLES, Household, manifest
from rigs.tls import Authority, token_file

TOKEN = "the-admin-token-of-tests"
UNREACHABLE = 6


class Secured:
    """A store that speaks TLS alone and asks clients for certificates. ``files``: what is in use, under fixed names."""

    def __init__(self, folder: Path, kind: str, start: Callable[[Secured], tuple[str, Server]]) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl program to make certificates with")
        self.folder, self.kind, self.files = folder, kind, folder / "used"
        self.files.mkdir()
        self.renew("first")
        self.url, self.server = start(self)

    def renew(self, name: str) -> None:
        """Have all certificates from a new authority, and only that be trusted."""
        made = Authority(self.folder / name)
        made.issue("server", extensions="subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        made.issue("client", extensions="extendedKeyUsage=clientAuth\n")
        for file in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key"):
            shutil.copy(made.folder / file, self.files / f"{file}.new")
            (self.files / f"{file}.new").replace(self.files / file)

    def variables(self, ca: str = "used", client: bool = True) -> dict[str, str]:
        names = {
            "consul": ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"),
            "etcd": ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"),
        }[self.kind]
        paths = (self.folder / ca / "ca.pem", self.files / "client.pem", self.files / "client.key")
        shown = dict(zip(names, map(str, paths), strict=True))
        return shown if client else {names[0]: shown[names[0]]}


@pytest.fixture(params=["consul", "etcd"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Secured]:
    def consul(one: Secured) -> tuple[str, Server]:
        (port,) = free_ports(1)
        server = request.getfixturevalue("private_consul")(
            ports={"https": port},  # the plain one is for the rig, which waits for it
            verify_incoming=True,
            ca_file=str(one.files / "ca.pem"),
            cert_file=str(one.files / "server.pem"),
            key_file=str(one.files / "server.key"),
        )
        return f"consul+https://127.0.0.1:{port}", server

    def etcd(one: Secured) -> tuple[str, Server]:
        client, peer = (f"127.0.0.1:{port}" for port in free_ports(2))
        flags = {"client_cert_auth": "true", "trusted_ca_file": one.files / "ca.pem"}
        flags |= {"cert_file": one.files / "server.pem", "key_file": one.files / "server.key"}
        (plain,) = free_ports(1)
        member = EtcdMember(
            request.getfixturevalue("etcd_binary"),
            tmp_path / "etcd",
            name="m",
            client=f"127.0.0.1:{plain}",
            peers={"m": peer},
            flags=flags | {"listen_client_urls": f"https://{client},http://127.0.0.1:{plain}"},
        )
        member.start()
        return f"etcd+https://{client}", member

    one = Secured(tmp_path, request.param, consul if request.param == "consul" else etcd)
    yield one
    one.server.kill()


@pytest.fixture
def home(secured: Secured, tmp_path: Path) -> Iterator[Household]:
    env = secured.variables() | {
        "http_proxy": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:1",
        "NO_PROXY": "",
    }
    strangers = {"wrong-ca": env | secured.variables(ca="stranger"), "nobody": secured.variables(client=False)}
    Authority(tmp_path / "stranger")
    household = Household(secured.url, tmp_path, {**dict.fromkeys(ROLES, env), **strangers})
    yield household
    household.close()


def test_everything_over_tls_and_then_by_another_authority(home: Household, secured: Secured, tmp_path: Path) -> None:
    tokens, of_agent, of_web = token_file(tmp_path / "tokens", f"me admin {TOKEN}"), *free_ports(2)
    tls = ["--tokens", str(tokens)]
    tls += ["--tls-cert", str(secured.files / "server.pem"), "--tls-key", str(secured.files / "server.key")]
    state = ["--state-dir", str(tmp_path / "state")]
    home.start("scheduler", "run", "scheduler")
    home.start("agent", "run", "agent", "--host", HOST, *state, "--listen", f"127.0.0.1:{of_agent}", *tls)
    home.start("viewer", "web", "--listen", f"127.0.0.1:{of_web}", *tls)
    home.done("people", "apply", "-f", "-", stdin=manifest("echo here; exec sleep 600", "one", "default", desired=1))
    (one,) = home.until("it is well", lambda: home.well("one", 1, hosts=(HOST,)))

    def asked(port: int, path: str, ca: Path = secured.files / "ca.pem") -> bytes:
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        )
        with opener.open(request, timeout=20) as answer:
            return bytes(answer.read())

    home.until(
        "the page has it", lambda: [task["id"] for task in json.loads(asked(of_web, "/v1/tasks"))["items"]] == [one]
    )
    assert asked(of_agent, "/healthz") == b"ok\n"
    for port in (of_agent, of_web):
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            asked(port, "/healthz", tmp_path / "stranger" / "ca.pem")
    for who, said in (("wrong-ca", "CERTIFICATE_VERIFY_FAILED"), ("nobody", "TLS")):
        refused = home.sked(who, "tasks")
        assert refused.returncode == UNREACHABLE and said in refused.stderr.upper().replace(" ", "_"), refused.stderr

    secured.renew("second")
    secured.server.kill()
    secured.server.start()
    more = manifest("exec sleep 600", "two", "default", desired=1, beside=["one"])
    home.until("people get in", lambda: home.sked("people", "apply", "-f", "-", stdin=more).returncode == 0)
    home.until("and processes that were not restarted", lambda: home.well("two", 1, hosts=(HOST,)))
    assert home.well("one", 1, hosts=(HOST,)) == [one]
    assert home.done("people", "logs", one).count("here") == 1
    for name in ("one", "two"):
        home.done("people", "delete", f"service/{name}", "--cascade", "-y")
    home.until("all is gone", lambda: home.done("people", "tasks", "-o", "json").count('"id"') == 0)
