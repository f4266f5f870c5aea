"""What `sked plugins check` tries this package with: the server that VAULT_ADDR names, in the engine mounted at
``secret``, below a prefix of its own, by the token in VAULT_TOKEN."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sked_core.plugin import SecretContext, SecretProvider, SkedError
from sked_core.testing.samples import Keep, Sample, SecretSample
from sked_core.testing.store_contract.proxy import Proxy
from sked_vault.http import Answer, Server
from sked_vault.provider import VaultSecrets

MOUNT = "secret"
OURS = "SKED_CHECK_VAULT_TOKEN"
"""The provider takes the token out of its environment: that is a copy for each."""


def samples() -> Sequence[Sample]:
    """One of the provider; of a server with TLS no outage is tried."""
    vault = _Vault()
    plain = urlsplit(os.environ.get("VAULT_ADDR", "")).scheme == "http"
    outage = vault.outage if plain else None
    return [
        SecretSample(name="vault", fresh=vault.fresh, fields=True, outage=outage, needs=vault.needs, clear=vault.clear)
    ]


class _Vault:
    """Keeps secrets in the server, below prefixes of its own, and deletes them with all their versions."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[str, set[str]]] = {}
        self._proxies: dict[Path, Proxy] = {}

    def needs(self) -> str:
        for variable in ("VAULT_ADDR", "VAULT_TOKEN"):
            if not os.environ.get(variable):
                what = f"a server in which secrets below {MOUNT}/sked-check/ may be kept"
                return f"{variable}: {what}" if variable == "VAULT_ADDR" else f"{variable}, beside VAULT_ADDR"
        path = f"sked-check/{secrets.token_hex(8)}/try"
        try:
            kept, gone = self._write(path, "x"), self._delete(path)
        except SkedError as error:
            return f"a server that answers at VAULT_ADDR: {error}"
        if kept.status != 200:
            return f"a token that may write {MOUNT}/data/sked-check/*: answered {kept.status}"
        if gone.status != 204:
            return f"a token that may delete {MOUNT}/metadata/sked-check/*: answered {gone.status}"
        return ""

    def fresh(self, folder: Path) -> tuple[SecretProvider, Keep]:
        prefix, names = self._kept[folder] = f"sked-check/{secrets.token_hex(8)}", set[str]()
        os.environ[OURS] = os.environ["VAULT_TOKEN"]
        address = os.environ["VAULT_ADDR"].rstrip("/")
        if urlsplit(address).scheme == "http":
            server = _server()
            proxy = self._proxies[folder] = Proxy(f"{server.host}:{server.port}")
            address = f"http://{proxy.address}"
        settings = {"address": address, "mount": MOUNT, "prefix": prefix, "token_variable": OURS, **_more()}

        def keep(name: str, value: str | None) -> None:
            names.add(name)
            path = f"{prefix}/{name}"
            answer = self._delete(path) if value is None else self._write(path, value)
            assert answer.status in (200, 204), f"the server answered {answer.status} to what keeps a secret"

        return VaultSecrets(SecretContext("sked-check", settings)), keep

    def outage(self, folder: Path) -> AbstractContextManager[object]:
        return self._proxies[folder].away()

    def clear(self, folder: Path) -> None:
        prefix, names = self._kept.pop(folder, ("", set()))
        for name in names:
            self._delete(f"{prefix}/{name}")
        if folder in self._proxies:
            with self._proxies.pop(folder):
                pass  # its end closes it

    def _write(self, path: str, value: str) -> Answer:
        return self._ask("POST", f"/v1/{MOUNT}/data/{path}", {"data": {"value": value}})

    def _delete(self, path: str) -> Answer:
        return self._ask("DELETE", f"/v1/{MOUNT}/metadata/{path}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        headers = {"X-Vault-Request": "true", "X-Vault-Token": os.environ["VAULT_TOKEN"]}
        if namespace := os.environ.get("VAULT_NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        return _server().ask(method, path, headers, body)


def _more() -> dict[str, str]:
    variables = {"namespace": "VAULT_NAMESPACE", "ca_file": "VAULT_CACERT"}
    return {field: value for field, variable in variables.items() if (value := os.environ.get(variable))}


def _server() -> Server:
    """Raises InvalidValue for an address that can't be."""
    return Server(os.environ["VAULT_ADDR"].rstrip("/"), ca_file=os.environ.get("VAULT_CACERT", ""))
