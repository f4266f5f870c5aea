"""Where a server may listen, and with what."""

import os
import socket
import ssl
import stat

import httpx
import pytest

from rigs.tls import make_certificate
from serving.conftest import ADMIN
from sked_core.errors import InvalidValue
from sked_core.serving.listening import Listen, open_tcp, open_unix, parse_address, short_path


def trusting(certificate) -> httpx.Client:
    return httpx.Client(verify=ssl.create_default_context(cafile=certificate.cert), timeout=60)


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0", "[::]:0", "10.255.255.1:0"])
def test_an_address_that_others_get_to_takes_tokens_and_tls(address, tokens, tmp_path):
    certificate = make_certificate(tmp_path / "tls")
    for given, lacking in (
        ({}, "--tokens FILE --tls-cert FILE --tls-key FILE"),
        ({"tokens": tokens}, "--tls-cert FILE --tls-key FILE"),
        ({"tls_cert": certificate.cert, "tls_key": certificate.key}, "--tokens FILE"),
    ):
        with pytest.raises(InvalidValue, match="where other machines get to") as raised:
            open_tcp(Listen(address, **given))
        assert raised.value.hint.splitlines()[0] == f"give as well:  {lacking}"
        assert "--listen 127.0.0.1:0" in raised.value.hint


def test_with_both_it_is_served_to_others_over_tls(serve, tokens, tmp_path):
    certificate = make_certificate(tmp_path / "tls")
    served = serve(address="0.0.0.0:0", tokens=tokens, tls_cert=certificate.cert, tls_key=certificate.key)
    assert served.url.startswith("https://")
    url = f"https://127.0.0.1:{served.port}/who"
    with trusting(certificate) as client:
        assert client.get(url).status_code == 401
        assert client.get(url, headers={"authorization": f"Bearer {ADMIN}"}).json()["role"] == "admin"
        # An address can't be a stranger's name for this server.
        assert client.get(url, headers={"host": "192.0.2.7"}).status_code == 401, (
            "an address can't be a stranger's name"
        )
        assert client.get(url, headers={"host": "evil.example"}).status_code == 421
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{served.port}/who", timeout=60)


def test_a_renewed_certificate_is_taken_up(serve, tokens, tmp_path):
    first = make_certificate(tmp_path / "tls")
    served = serve(address="127.0.0.1:0", tls_cert=first.cert, tls_key=first.key)
    second = make_certificate(tmp_path / "new")
    second.key.replace(first.key)
    second.cert.replace(first.cert)
    served.listener.renew()
    with trusting(first) as client:
        assert client.get(f"{served.url}/who").status_code == 200


@pytest.mark.parametrize("address", ["", "localhost", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "::1:80"])
def test_what_is_no_address_is_said(address):
    with pytest.raises(InvalidValue):
        open_tcp(Listen(address))


def test_an_address_in_brackets_is_version_six():
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address(":80") == ("0.0.0.0", 80)


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InvalidValue, match="in use"):
        open_tcp(Listen(f"127.0.0.1:{other.getsockname()[1]}"))


def test_files_that_are_no_certificate_are_said(tmp_path, tokens):
    certificate = make_certificate(tmp_path / "tls")
    other = make_certificate(tmp_path / "other")
    with pytest.raises(InvalidValue, match="are no certificate and its key"):
        open_tcp(Listen("127.0.0.1:0", tls_cert=certificate.cert, tls_key=other.key))
    with pytest.raises(InvalidValue, match=r"can't read .*nothing"):
        open_tcp(Listen("127.0.0.1:0", tls_cert=certificate.cert, tls_key=tmp_path / "nothing"))
    with pytest.raises(InvalidValue, match="takes a certificate and its key"):
        open_tcp(Listen("127.0.0.1:0", tls_cert=certificate.cert))


def test_a_unix_socket_is_the_owners_alone_and_replaces_a_stale_one(serve, tmp_path):
    path = tmp_path / "serve" / "agent.sock"
    open_unix(path).close()
    assert path.exists(), "an agent that was killed leaves its socket behind"
    served = serve(listener=open_unix(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["agent.sock"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://anything", timeout=60) as client:
        assert client.get("/who").json() == {"name": "", "role": "admin"}
    assert served.url == f"unix:{path}"


def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(serve, tmp_path):
    path = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8) / "agent.sock"
    assert len(os.fsencode(path)) > 200
    serve(listener=open_unix(path))
    with (
        short_path(path) as name,
        httpx.Client(transport=httpx.HTTPTransport(uds=name), base_url="http://sked", timeout=60) as client,
    ):
        assert client.get("/who").status_code == 200
