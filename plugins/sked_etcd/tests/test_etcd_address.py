"""Which etcd a URL and the environment stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sked_core.plugin import InvalidValue
from sked_etcd.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("etcd://10.0.0.1:2380", {}, Address(("10.0.0.1:2380",))),
        ("etcd://10.0.0.1", {}, Address(("10.0.0.1:2379",))),
        ("etcd://[::1]:2380/", {}, Address(("[::1]:2380",))),
        ("etcd://a:1,b,[::1],a:1", {}, Address(("a:1", "b:2379", "[::1]:2379"))),
        ("etcd+https://a:1,b:2", {}, Address(("a:1", "b:2"), secure=True)),
        ("etcd+http://a:1", {}, Address(("a:1",))),
        ("etcd://", {}, Address(("127.0.0.1:2379",))),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "http://a:1, b:2"}, Address(("a:1", "b:2"))),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "https://a:1,https://b:2"}, Address(("a:1", "b:2"), secure=True)),
        ("etcd+https://", {"ETCDCTL_ENDPOINTS": "a:1"}, Address(("a:1",), secure=True)),
        ("etcd://c:3", {"ETCDCTL_ENDPOINTS": "https://a:1"}, Address(("c:3",))),
        ("etcd://a:1", {"ETCDCTL_USER": "me:se:cret"}, Address(("a:1",), user="me", password="se:cret")),
        (
            "etcd://a:1",
            {"ETCDCTL_USER": "me", "ETCDCTL_PASSWORD": "secret"},
            Address(("a:1",), user="me", password="secret"),
        ),
    ],
)
def test_urls_and_variables(url: str, environ: dict[str, str], expected: Address) -> None:
    assert parse_address(url, environ) == expected


@pytest.mark.parametrize(
    ("url", "environ", "words"),
    [
        ("etcd://me:secret@a:1", {}, "credentials"),
        ("etcd://a:1,me:secret@b:1", {}, "credentials"),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "https://me:secret@a:1"}, "credentials"),
        ("etcd://a:port", {}, "not valid"),
        ("etcd://a:99999", {}, "not valid"),
        ("etcd://a:1,", {}, "names no host"),
        ("etcd://:2379", {}, "names no host"),
        ("etcd://a:1/path", {}, "more than hosts and ports"),
        ("etcd://a:1?x=secret", {}, "more than hosts and ports"),
        ("etcd://a b:1", {}, "characters"),
        ("etcd://ä:1", {}, "characters"),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "https://a:1,http://b:1"}, "mixes schemes"),
        ("etcd+http://", {"ETCDCTL_ENDPOINTS": "https://a:1"}, "mixes schemes"),
        ("etcd://", {"ETCDCTL_ENDPOINTS": "unix://a"}, "does not speak"),
        ("etcd://a:1", {"ETCDCTL_USER": "me"}, "no password"),
        ("etcd://a:1", {"ETCDCTL_PASSWORD": "secret"}, "names no user"),
        ("etcd://a:1", {"ETCDCTL_CACERT": "/nowhere/ca.pem"}, "no file"),
    ],
)
def test_what_can_not_be_is_refused_without_its_secrets(url: str, environ: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidValue, match=words) as failure:
        parse_address(url, environ)
    assert "secret" not in f"{failure.value} {failure.value.hint}"


def test_files_for_tls_mean_tls_as_with_etcdctl(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("root:x:0:0")
    with pytest.raises(InvalidValue, match=r"ETCDCTL_CACERT: .* holds no certificate or key"):
        parse_address("etcd://a:1", {"ETCDCTL_CACERT": str(pem)})
    pem.write_text("-----BEGIN CERTIFICATE-----")
    assert parse_address("etcd://a:1", {"ETCDCTL_CACERT": str(pem)}) == Address(("a:1",), secure=True, ca_cert=str(pem))
    both = {"ETCDCTL_CERT": str(pem), "ETCDCTL_KEY": str(pem)}
    assert parse_address("etcd://a:1", both).secure
    assert not parse_address("etcd+http://a:1", both).secure
    with pytest.raises(InvalidValue, match="go together"):
        parse_address("etcd://a:1", {"ETCDCTL_CERT": str(pem)})


def test_the_password_is_in_no_representation() -> None:
    address = parse_address("etcd://a:1", {"ETCDCTL_USER": "me:secret"})
    assert "secret" not in f"{address} {address!r}"
