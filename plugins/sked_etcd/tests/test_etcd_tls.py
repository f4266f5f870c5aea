"""TLS to etcd: both sides show certificates of the authority that is named, or nothing is exchanged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rigs.tls import Authority
from sked_core.plugin import InvalidValue, Put, Unavailable
from sked_etcd.store import EtcdStore


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make certificates with")
    made = Authority(tmp_path_factory.mktemp("tls") / "authority")
    made.issue("server", extensions="subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    made.issue("misnamed", extensions="subjectAltName=DNS:etcd.test\nextendedKeyUsage=serverAuth,clientAuth\n")
    made.issue("client", extensions="extendedKeyUsage=clientAuth\n")
    return made


def start(local_etcd: Callable[..., Any], authority: Authority, name: str = "server") -> Any:
    folder = authority.folder
    (server,) = local_etcd(
        scheme="https",
        client_cert_auth=True,
        trusted_ca_file=folder / "ca.pem",
        cert_file=folder / f"{name}.pem",
        key_file=folder / f"{name}.key",
    )
    return server


@pytest.fixture
def open_store(
    open_store: Callable[[str], EtcdStore], monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> Callable[..., EtcdStore]:
    """Opens clients with certificates."""

    def open_one(url: str, *, ca: str = "ca.pem", client: str = "client") -> EtcdStore:
        for variable, name in (
            ("ETCDCTL_CACERT", ca),
            ("ETCDCTL_CERT", client and f"{client}.pem"),
            ("ETCDCTL_KEY", client and f"{client}.key"),
        ):
            monkeypatch.setenv(variable, str(authority.folder / name) if name else "")
        return open_store(url)

    return open_one


@pytest.fixture
def web_server() -> Iterator[str]:
    """Where something answers in HTTP/1, whatever it hears."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_tls_with_an_authority_and_a_client_certificate(
    local_etcd: Callable[..., Any], authority: Authority, open_store: Any
) -> None:
    server = start(local_etcd, authority)
    store = open_store(server.url)
    store.commit([Put("a/1", b"1")])
    snapshot = store.read("a/")
    assert snapshot.entries["a/1"].value == b"1"
    assert store.wait("a/", snapshot.revision, 0.1) == snapshot.revision
    assert open_store(server.url.replace("etcd://", "etcd+https://")).read("a/").entries


def test_who_can_not_be_proven_is_refused(
    local_etcd: Callable[..., Any], authority: Authority, open_store: Any, tmp_path: Path
) -> None:
    server, misnamed = start(local_etcd, authority), start(local_etcd, authority, "misnamed")
    stranger = Authority(tmp_path / "stranger")
    shutil.copy(stranger.folder / "ca.pem", authority.folder / "stranger.pem")
    secure = server.url.replace("etcd://", "etcd+https://")
    with pytest.raises(Unavailable, match=r"TLS: .*CERTIFICATE_VERIFY_FAILED") as failure:
        open_store(server.url, ca="stranger.pem").read("a/")
    assert "set ETCDCTL_CACERT" in failure.value.hint
    with pytest.raises(Unavailable, match=r"TLS: .*CERTIFICATE_VERIFY_FAILED"):
        open_store(secure, ca="", client="").read("a/")  # this machine's own authorities don't know it
    with pytest.raises(Unavailable, match=r"TLS: it refuses this client's certificate, or asks for one") as failure:
        open_store(secure, client="").read("a/")  # the server wants to know who asks
    assert "set ETCDCTL_CERT and ETCDCTL_KEY" in failure.value.hint
    with pytest.raises(Unavailable, match=r"TLS: .*[Hh]ostname") as failure:
        open_store(misnamed.url).read("a/")
    assert "that etcd's certificate holds" in failure.value.hint


def other_words(failure: pytest.ExceptionInfo[Unavailable], expected: str) -> None:
    """Something is there: it is told how to speak to it, and not to start another one."""
    assert expected in failure.value.hint
    assert "start one" not in failure.value.hint


@pytest.mark.parametrize("count", [1, 3])
def test_plain_words_to_a_port_with_tls_end_in_the_advice_to_use_tls(
    local_etcd: Callable[..., Any], authority: Authority, open_store: Any, count: int
) -> None:
    folder = authority.folder
    certificate = {"cert_file": folder / "server.pem", "key_file": folder / "server.key"}
    where = ",".join(server.address for server in local_etcd(count, scheme="https", **certificate))
    with pytest.raises(Unavailable, match="it accepts connections and closes them unanswered") as failure:
        open_store(f"etcd+http://{where}").read("a/")
    other_words(failure, f"if it has TLS:   etcd+https://{where}, with ETCDCTL_CACERT")
    store = open_store(f"etcd+https://{where}", client="")
    store.commit([Put("a/1", b"1")])
    with pytest.raises(Unavailable) as failure:
        open_store(f"etcd://{where}", ca="", client="").read("a/")
    other_words(failure, "etcd+https://")


def test_tls_to_a_port_without_it_ends_in_the_advice_to_do_without(
    local_etcd: Callable[..., Any], open_store: Any
) -> None:
    (server,) = local_etcd()
    for url in (server.url, f"etcd+https://{server.address}"):  # the environment, or the URL, asks for TLS
        with pytest.raises(Unavailable, match="TLS: it closes connections in the handshake") as failure:
            open_store(url).read("a/")
        other_words(failure, f"if it has no TLS:  etcd+http://{server.address}; etcd:// uses TLS where ETCDCTL_CACERT")
    open_store(f"etcd+http://{server.address}").commit([Put("a/1", b"1")])


def test_what_answers_in_other_words_than_asked_is_told_apart(open_store: Any, web_server: str) -> None:
    with pytest.raises(Unavailable, match="TLS: what it says is not TLS") as failure:
        open_store(f"etcd+https://{web_server}").read("a/")
    other_words(failure, "if it has no TLS:")
    with pytest.raises(Unavailable, match="what it says is not HTTP/2") as failure:
        open_store(f"etcd+http://{web_server}").read("a/")
    other_words(failure, "if it has TLS:")


def test_nobody_there_stays_nobody_there(free_port: Callable[[], int], open_store: Any) -> None:
    for scheme in ("etcd+https", "etcd+http"):
        with pytest.raises(Unavailable, match="connection refused") as failure:
            open_store(f"{scheme}://127.0.0.1:{free_port()}").read("a/")
        assert "start one:" in failure.value.hint


def test_a_failed_handshake_prints_nothing(
    local_etcd: Callable[..., Any], authority: Authority, open_store: Any
) -> None:
    server = start(local_etcd, authority)
    open_store(server.url, ca="client.pem").close()  # sets the environment
    program = "import sys; from sked_core.surface.cli import main; sys.argv[0] = 'sked'; main()"
    command = [sys.executable, "-c", program, "--backend", server.url, "tasks"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 6
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("sked: cannot reach etcd at"), ended.stderr
    assert "TLS" in first
    assert [line for line in rest if not line.startswith("  ")] == []


def test_files_that_are_no_certificates(authority: Authority, open_store: Any) -> None:
    (authority.folder / "broken.pem").write_text("no certificate")
    with pytest.raises((InvalidValue, Unavailable)):
        open_store("etcd://127.0.0.1:2379", ca="broken.pem").read("a/")
