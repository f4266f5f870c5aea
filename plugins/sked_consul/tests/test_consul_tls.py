"""TLS to Consul: verified against the CA that is named, or refused."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sked_consul import client
from sked_consul.store import ConsulStore
from sked_core.plugin import Unavailable


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for the name consul.test, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make a certificate with")
    key, cert, both = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=consul.test"),
            *("-addext", "subjectAltName=DNS:consul.test", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    both.write_text(cert.read_text() + key.read_text())
    return both


@pytest.fixture
def secure_url(certificate: Path) -> Iterator[str]:
    """A server that has nothing under any prefix, and asks its clients for that certificate."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Consul-Index", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal of the test run."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that gives up on the handshake is what is tested."""

    server = Server(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"consul+https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_tls_with_ca_client_certificate_and_server_name(
    secure_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"):
        monkeypatch.setenv(name, str(certificate))
    monkeypatch.setenv("CONSUL_TLS_SERVER_NAME", "consul.test")
    store = ConsulStore(secure_url)
    assert store.read("state/").entries == {}
    store.close()
    monkeypatch.delenv("CONSUL_TLS_SERVER_NAME")
    with pytest.raises(Unavailable, match="TLS"):
        ConsulStore(secure_url).read("state/")


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_TLS_SERVER_NAME", "consul.test")
    monkeypatch.setenv("CONSUL_HTTP_SSL_VERIFY", "false")
    with pytest.raises(Unavailable, match="TLS"):
        ConsulStore(secure_url).read("state/")


def test_plain_http_to_a_tls_port_is_unavailable(secure_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
    with pytest.raises(Unavailable):
        ConsulStore(secure_url.replace("+https", "+http")).read("state/")
