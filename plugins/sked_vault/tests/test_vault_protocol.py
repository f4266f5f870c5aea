"""The provider against the protocol, not against Vault: no Vault and no OpenBao is to be had where these tests run.

A small server answers as the API documentation of both has it (see sked_vault.provider), with the texts that a real
one is documented to give; what a real one does beyond that, these tests do not know.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rigs.vault import TOKEN, Documented, serving
from sked_core.plugin import Denied, InvalidValue, NotFound, SecretContext, Unavailable
from sked_core.testing.needed import lacking
from sked_core.testing.samples import Keep, SecretSample
from sked_core.testing.secret_contract import CANARY, DEADLINE_SECONDS, SecretContract
from sked_vault import plugin
from sked_vault.provider import VaultSecrets


@pytest.fixture
def documented() -> Documented:
    return Documented()


@pytest.fixture
def address(documented: Documented) -> Iterator[str]:
    server = serving(documented)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


Make = Callable[..., VaultSecrets]


@pytest.fixture
def make(address: str, token_file: Path) -> Make:
    def make(**settings: Any) -> VaultSecrets:
        named = {"token_file": str(token_file)} if not {"approle", "token_variable"} & settings.keys() else {}
        return VaultSecrets(SecretContext("h", {"address": address, **named, **settings}))

    return make


@functools.cache
def shared() -> tuple[Documented, str]:
    """One server for all tests of the contract, which ends with the process; and its address."""
    documented = Documented()
    return documented, f"http://127.0.0.1:{serving(documented).server_port}"


def a_vault(folder: Path) -> tuple[VaultSecrets, Keep]:
    documented, address = shared()
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    settings = {"address": address, "token_file": str(token_file), "prefix": folder.name}

    def keep(name: str, value: str | None) -> None:
        documented.keep(f"{folder.name}/{name}", value)

    return VaultSecrets(SecretContext("h", settings)), keep


@contextlib.contextmanager
def sealed(_folder: Path) -> Iterator[None]:
    documented, _ = shared()
    documented.sealed = True
    try:
        yield
    finally:
        documented.sealed = False


class TestVault(SecretContract):
    sample = SecretSample(name="vault", fresh=a_vault, fields=True, outage=sealed)


class TestTheCheckOfPlugins(SecretContract):
    """What `sked plugins check` tries where VAULT_ADDR and VAULT_TOKEN are set: nothing is left of it."""

    sample: ClassVar[SecretSample]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _vault(cls) -> Iterator[None]:
        documented = Documented()
        server = serving(documented)
        documented.keep("shop/one", "of others")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
            patch.setenv("VAULT_TOKEN", TOKEN)
            patch.delenv("VAULT_NAMESPACE", raising=False)
            patch.delenv("VAULT_CACERT", raising=False)
            (cls.sample,) = plugin.sked_samples()
            assert lacking(cls.sample) == ""
            yield
        server.shutdown()
        server.server_close()
        assert documented.secrets == {"secret/data/shop/one": [{"value": "of others"}]}
        changed = [path for method, path, _ in documented.asked if method != "GET"]
        assert [path for path in changed if not re.match("/v1/secret/(data|metadata)/sked-check/", path)] == []


def test_the_check_of_plugins_says_what_it_needs_to_try_it(
    address: str, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT"):
        monkeypatch.delenv(variable, raising=False)
    (sample,) = plugin.sked_samples()
    assert lacking(sample).startswith("needs VAULT_ADDR")
    monkeypatch.setenv("VAULT_ADDR", address)
    assert lacking(sample) == "needs VAULT_TOKEN, beside VAULT_ADDR"
    monkeypatch.setenv("VAULT_TOKEN", "hvs.other")
    assert lacking(sample) == "needs a token that may write secret/data/sked-check/*: answered 403"
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    assert lacking(sample) == ""
    assert documented.secrets == {}
    monkeypatch.setenv("VAULT_ADDR", "http://192.0.2.1:8200")
    assert "http would show the token" in lacking(sample)


def test_the_request_is_the_documented_one(make: Make, documented: Documented) -> None:
    documented.secrets["team/kv/data/prod/shop/db"] = [{"value": CANARY}]
    assert make(mount="team/kv/", prefix="prod", namespace="ns1/").read("shop/db", "").value == CANARY
    method, path, headers = documented.asked[-1]
    assert (method, path) == ("GET", "/v1/team/kv/data/prod/shop/db")
    assert headers["X-Vault-Token"] == TOKEN
    assert headers["X-Vault-Namespace"] == "ns1"
    assert headers["X-Vault-Request"] == "true"


def test_several_fields_need_a_key_and_only_texts_are_given(make: Make, documented: Documented) -> None:
    documented.secrets["secret/data/db"] = [{"user": "shop", "password": CANARY, "port": 5432}]  # type: ignore[dict-item]
    provider = make()
    assert provider.read("db", "password").value == CANARY
    for key, error, message in (("", NotFound, "3 fields: say which by key"), ("port", Denied, "no text")):
        with pytest.raises(error, match=message) as raised:
            provider.read("db", key)
        assert CANARY not in str(raised.value)


def test_a_secret_whose_newest_version_was_deleted_is_not_found(make: Make, documented: Documented) -> None:
    documented.keep("db", CANARY)
    documented.keep("db", None)
    with pytest.raises(NotFound, match="newest version was deleted"):
        make().read("db", "")


def test_a_permission_that_lacks_is_told_from_a_token_that_is_no_longer_valid(
    make: Make, documented: Documented
) -> None:
    documented.keep("db", CANARY)
    documented.forbidden.add("secret/data/db")
    with pytest.raises(Denied, match=r"does not let this agent read it \(403\)"):
        make().read("db", "")
    documented.tokens.clear()
    with pytest.raises(Unavailable, match="takes this agent's token for none that is valid"):
        make().read("db", "")
    assert "none that is valid" in make().problems()[0]


def test_sealed_and_other_failures_are_told_apart_and_none_of_them_is_not_found(
    make: Make, documented: Documented
) -> None:
    documented.keep("db", CANARY)
    documented.sealed = True
    with pytest.raises(Unavailable, match="is sealed"):
        make().read("db", "")
    assert "is sealed: unseal it" in make().problems()[0]
    documented.sealed = False
    for status, body, message in (
        (429, b"{}", "asked too much"),
        (500, b'{"errors":["internal error"]}', "answers 500"),
        (503, b"<html>busy</html>", "not ready"),
        (307, b"", "redirect, which is not followed"),
        (200, b"{", "something else than a secret"),
        (200, b'{"data":{"value":"of version 1"}}', "is secret/data of version 2?"),
        (200, b"[" * 100_000, "something else than a secret"),
        (200, b"x" * (1024 * 1024 + 1), "too large"),
        (400, b'{"errors":["missing client token"]}', "answers 400"),
    ):
        documented.answers["secret/data/db"] = (status, body)
        with pytest.raises(Unavailable, match=message.replace("?", r"\?")):
            make().read("db", "")
    documented.answers.clear()
    assert make().read("db", "").value == CANARY
    assert make().problems() == []


def test_a_token_file_is_read_again_when_it_changes(make: Make, documented: Documented, token_file: Path) -> None:
    documented.keep("db", CANARY)
    provider = make()
    assert provider.read("db", "").value == CANARY
    documented.tokens = {"hvs.next"}
    with pytest.raises(Unavailable):
        provider.read("db", "")
    token_file.write_text("hvs.next")
    assert provider.read("db", "").value == CANARY


def test_a_token_that_others_may_read_is_not_used(make: Make, documented: Documented, token_file: Path) -> None:
    token_file.chmod(0o644)
    with pytest.raises(Denied, match="chmod 600"):
        make().read("db", "")
    assert documented.asked == []
    token_file.chmod(0o600)
    for content in ("", "two words", "line\nbreak", "ü"):
        token_file.write_text(content)
        with pytest.raises(Unavailable, match="holds no token"):
            make().read("db", "")
    token_file.unlink()
    with pytest.raises(Unavailable, match="can't be read"):
        make().read("db", "")


def test_a_variable_is_taken_out_of_the_environment(
    make: Make, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented.keep("db", CANARY)
    monkeypatch.setenv("MY_VAULT_TOKEN", TOKEN)
    provider = make(token_variable="MY_VAULT_TOKEN")
    assert "MY_VAULT_TOKEN" not in os.environ
    assert provider.read("db", "").value == CANARY


def test_an_approle_logs_in_once_and_again_when_its_token_is_over(
    make: Make, documented: Documented, tmp_path: Path
) -> None:
    documented.keep("db", CANARY)
    secret_id = tmp_path / "secret-id"
    secret_id.write_text("right\n")
    secret_id.chmod(0o600)
    role = {"role_id": "sked", "secret_id_file": str(secret_id)}
    provider = make(approle=role)
    for _ in range(3):
        assert provider.read("db", "").value == CANARY
    assert len(documented.logins) == 1
    documented.tokens.clear()  # revoked
    assert provider.read("db", "").value == CANARY
    assert len(documented.logins) == 2
    assert documented.asked[0][1] == "/v1/auth/approle/login"
    secret_id.write_text("wrong")
    with pytest.raises(Unavailable, match=r"does not let this agent log in \(400\)") as raised:
        make(approle=role).read("db", "")
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "http://vault.example.com:8200"}, "http would show the token"),
        ({"address": "https://user:pw@vault.example.com"}, "and nothing else"),
        ({"address": "https://vault.example.com/v1"}, "expected https://HOST:PORT"),
        ({"address": "vault.example.com"}, "expected https://HOST:PORT"),
        ({"address": "https://vault:port"}, "is no URL"),
        ({"mount": "../sys"}, "mount: expected a path"),
        ({"mount": ""}, "mount: expected a path"),
        ({"namespace": "a b"}, "namespace: expected a path"),
        ({"namespace": "a\r\nX-Vault-Token: b"}, "namespace: expected a path"),
        ({"token_file": "relative"}, "token_file: expected an absolute path"),
        ({"token_variable": "X", "token_file": "/x"}, "got token_file and token_variable"),
        ({"kv": 1}, "secrets.providers.vault.kv: expected 2"),
        ({"adress": "x"}, 'did you mean "address"'),
    ],
)
def test_settings_that_can_t_be_are_refused(settings: dict[str, Any], message: str) -> None:
    defaults = {"address": "https://127.0.0.1:8200", "token_file": "/x"}
    with pytest.raises(InvalidValue, match=message):
        VaultSecrets(SecretContext("h", {**defaults, **settings}))


def test_no_way_to_show_who_it_is_is_refused() -> None:
    with pytest.raises(InvalidValue, match="expected one of token_file, token_variable and approle, got none"):
        VaultSecrets(SecretContext("h", {"address": "https://127.0.0.1:8200"}))


@pytest.mark.parametrize("behaviour", ["says nothing", "drips", "hangs up", "is not there"])
def test_a_server_that_does_not_answer_is_given_up_within_the_deadline(
    behaviour: str, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sked_vault.http.DEADLINE_SECONDS", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(1)
            try:
                if behaviour == "drips":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    while not over.wait(0.1):
                        connection.sendall(b" ")
                elif behaviour == "says nothing":
                    over.wait(60)
            except OSError:
                pass

    if behaviour == "is not there":
        listener.close()
    threading.Thread(target=serve, daemon=True).start()
    provider = VaultSecrets(SecretContext("h", {"address": f"http://127.0.0.1:{port}", "token_file": str(token_file)}))
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"does not answer|cut off"):
        provider.read("db", "")
    assert time.monotonic() - began < DEADLINE_SECONDS
    over.set()
    listener.close()


def test_over_tls_only_a_server_that_is_vouched_for_is_shown_the_token(
    documented: Documented, token_file: Path, tmp_path: Path
) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", "key.pem", "-out", "ca.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    documented.keep("db", CANARY)
    server = serving(documented, context)
    try:
        settings = {"address": f"https://127.0.0.1:{server.server_port}", "token_file": str(token_file)}
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            VaultSecrets(SecretContext("h", settings)).read("db", "")
        assert documented.asked == []
        trusting = VaultSecrets(SecretContext("h", {**settings, "ca_file": str(tmp_path / "ca.pem")}))
        assert trusting.read("db", "").value == CANARY
    finally:
        server.shutdown()
        server.server_close()


def test_proxies_of_the_environment_are_not_asked(
    make: Make, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented.keep("db", CANARY)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert make().read("db", "").value == CANARY
