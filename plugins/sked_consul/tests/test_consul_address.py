"""URLs and environment: which wins, what is refused, and that no secret shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sked_consul.address import Address, parse_address
from sked_core.plugin import InvalidValue


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("consul://", {}, "http://127.0.0.1:8500"),
        ("consul://10.0.0.1", {}, "http://10.0.0.1:8500"),
        ("consul://10.0.0.1:1234/", {}, "http://10.0.0.1:1234"),
        ("consul://[::1]:8501", {}, "http://[::1]:8501"),
        ("consul+https://c.example:8501", {}, "https://c.example:8501"),
        ("consul://", {"CONSUL_HTTP_ADDR": "10.0.0.2:99"}, "http://10.0.0.2:99"),
        ("consul://", {"CONSUL_HTTP_ADDR": "https://[::1]:99"}, "https://[::1]:99"),
        ("consul+http://", {"CONSUL_HTTP_ADDR": "https://10.0.0.2:99"}, "http://10.0.0.2:99"),
        ("consul://10.0.0.1:1", {"CONSUL_HTTP_ADDR": "10.0.0.2:99"}, "http://10.0.0.1:1"),
        ("consul://10.0.0.1:1", {"CONSUL_HTTP_ADDR": "unix:///no/matter"}, "http://10.0.0.1:1"),
        ("consul://10.0.0.1:1", {"CONSUL_HTTP_SSL": "true"}, "https://10.0.0.1:1"),
        ("consul+http://10.0.0.1:1", {"CONSUL_HTTP_SSL": "true"}, "http://10.0.0.1:1"),
    ],
)
def test_the_url_beats_the_environment(url: str, environ: dict[str, str], expected: str) -> None:
    assert str(parse_address(url, environ)) == expected


@pytest.mark.parametrize(
    ("url", "environ", "words"),
    [
        ("consul://127.0.0.1:http", {}, "the URL of the store is not valid"),
        ("consul://127.0.0.1:99999", {}, "the URL of the store is not valid"),
        ("consul://127.0.0.1:8500/some/prefix", {}, "more than a host and a port"),
        ("consul://127.0.0.1:8500?token=canary", {}, "more than a host and a port"),
        ("consul://canary@127.0.0.1:8500", {}, "credentials"),
        ("consul://", {"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "unix:// is not supported"),
        ("consul://", {"CONSUL_HTTP_ADDR": "http://user:canary@h"}, "CONSUL_HTTP_ADDR holds credentials"),
        ("consul://", {"CONSUL_HTTP_TOKEN": "canary\nX-Evil: 1"}, "CONSUL_HTTP_TOKEN"),
        ("consul://", {"CONSUL_HTTP_TOKEN_FILE": "/does/not/exist"}, "CONSUL_HTTP_TOKEN_FILE: can't read"),
    ],
)
def test_what_can_not_be_is_refused_without_showing_it(url: str, environ: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidValue, match=words) as refusal:
        parse_address(url, environ)
    assert "canary" not in str(refusal.value) + refusal.value.hint


def test_the_token_comes_from_file_or_environment_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    both = {"CONSUL_HTTP_TOKEN": "from-environment", "CONSUL_HTTP_TOKEN_FILE": str(file)}
    assert parse_address("consul://", both).token == "from-file"
    address = parse_address("consul://", {"CONSUL_HTTP_TOKEN": "from-environment"})
    assert address.token == "from-environment"
    assert "from-environment" not in repr(address) + str(address)


def test_tls_files_come_from_the_environment(tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    pem.touch()
    files = {"CONSUL_CACERT": str(pem), "CONSUL_CLIENT_CERT": str(pem), "CONSUL_CLIENT_KEY": str(pem)}
    address = parse_address("consul+https://h:1", {**files, "CONSUL_TLS_SERVER_NAME": "consul.test"})
    assert address == Address(
        "h", 1, secure=True, ca_cert=str(pem), client_cert=str(pem), client_key=str(pem), server_name="consul.test"
    )
    with pytest.raises(InvalidValue, match="CONSUL_CACERT: there is no file"):
        parse_address("consul+https://h:1", {"CONSUL_CACERT": "/does/not/exist"})
