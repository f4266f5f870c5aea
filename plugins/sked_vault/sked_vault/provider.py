"""The provider ``vault``: secrets of a key-value engine of version 2.

Answers as the server's API documentation has them: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2,
https://developer.hashicorp.com/vault/api-docs#http-status-codes, https://openbao.org/api-docs/secret/kv/kv-v2/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sked_core.plugin import (
    MAX_SECRET_BYTES,
    Denied,
    InvalidValue,
    NotFound,
    Secret,
    SecretContext,
    Unavailable,
    check_spec,
)
from sked_vault.http import Answer, Server
from sked_vault.login import AppRole, Login, TokenFile, TokenVariable

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")


class AppRoleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logging in with a role id, and a secret id out of a file."""

    role_id: str
    secret_id_file: str
    mount: str = "approle"


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``address``: ``https://HOST:PORT``. ``mount``: where the engine is; ``prefix``: put before every name. One of
    ``token_file``, ``token_variable`` and ``approle`` says how the agent shows who it is."""

    address: str
    mount: str = "secret"
    prefix: str = ""
    namespace: str = ""
    token_file: str = ""
    token_variable: str = ""
    approle: AppRoleSettings | None = None
    ca_file: str = ""
    plain_http: bool = False
    kv: Literal[2] = 2


class VaultSecrets:
    """A version is the engine's own, with when it was made: a secret that was removed and made anew counts from 1."""

    def __init__(self, context: SecretContext) -> None:
        if problems := check_spec(context.settings, VaultSettings, "secrets.providers.vault"):
            raise InvalidValue("; ".join(map(str, problems)))
        settings = msgspec.convert(context.settings, VaultSettings)
        for field in ("mount", "prefix", "namespace"):
            value = getattr(settings, field).strip("/")
            if (value or field == "mount") and (not _NAME.match(value) or ".." in value):
                raise InvalidValue(f"secrets.providers.vault.{field}: expected a path such as secret")
        self._server = Server(settings.address, ca_file=settings.ca_file, plain_http=settings.plain_http)
        self._path = "/".join(part for part in (settings.mount.strip("/"), "data", settings.prefix.strip("/")) if part)
        self._headers = {"X-Vault-Request": "true"}
        if settings.namespace:
            self._headers["X-Vault-Namespace"] = settings.namespace.strip("/")
        self._login = self._login_of(settings)

    def __repr__(self) -> str:
        return f"VaultSecrets({self._server})"

    def read(self, name: str, key: str) -> Secret:
        if not _NAME.match(name) or ".." in name:
            raise NotFound(f"no secret can be called {name[:200]!r}")
        answer = self._ask("GET", f"/v1/{self._path}/{name}")
        found = answer.body.get("data")
        metadata = found.get("metadata") if isinstance(found, dict) else None
        fields = found.get("data") if isinstance(found, dict) else None
        if answer.status == 404:
            gone = isinstance(metadata, dict) and metadata.get("version")
            what = "its newest version was deleted" if gone else f"Vault has none of that name below {self._path}"
            raise NotFound(what)
        if not isinstance(fields, dict) or not isinstance(metadata, dict):
            what = f"something else than a secret: is {self._path} of version 2?"
            raise Unavailable(f"Vault at {self._server} gave {what}")
        version = f"{metadata.get('version')}.{metadata.get('created_time')}"
        return Secret(_field(fields, key), version)

    def problems(self) -> list[str]:
        try:
            health = self._server.ask("GET", "/v1/sys/health?standbyok=true&perfstandbyok=true", self._headers)
            if health.status == 503:
                return [f"Vault at {self._server} is sealed: unseal it"]
            if health.status == 501:
                return [f"Vault at {self._server} is not initialised"]
            self._ask("GET", "/v1/auth/token/lookup-self")
        except (Unavailable, Denied, NotFound) as error:
            return [str(error)]
        return []

    def close(self) -> None:
        """No connection is kept."""

    def _login_of(self, settings: VaultSettings) -> Login:
        given = [name for name in ("token_file", "token_variable", "approle") if getattr(settings, name)]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise InvalidValue(
                f"secrets.providers.vault: expected one of token_file, token_variable and approle, got {got}"
            )
        if settings.approle is not None:
            role = settings.approle
            if not _NAME.match(role.mount) or ".." in role.mount:
                raise InvalidValue("secrets.providers.vault.approle.mount: expected a path such as approle")
            return AppRole(self._server, role.role_id, role.secret_id_file, role.mount, self._headers)
        return TokenFile(settings.token_file) if settings.token_file else TokenVariable(settings.token_variable)

    def _ask(self, method: str, path: str) -> Answer:
        """An answer of 200 or 404. Raises Denied where the token lacks the permission, Unavailable otherwise."""
        answer = self._with(self._login.token(), method, path)
        if answer.status in (401, 403):
            # Either the token is not valid (any more), which passes, or it may not see this.
            token = self._login.token(fresh=True)
            answer = self._with(token, method, path)
            if answer.status in (401, 403):
                if self._with(token, "GET", "/v1/auth/token/lookup-self").status != 200:
                    raise Unavailable(f"Vault at {self._server} takes this agent's token for none that is valid")
                raise Denied(f"Vault at {self._server} does not let this agent read it (403)")
        match answer.status:
            case 200 | 404:
                return answer
            case 503:
                sealed = any("sealed" in one.lower() for one in answer.errors)
                raise Unavailable(f"Vault at {self._server} is {'sealed' if sealed else 'not ready (503)'}")
            case 429:
                raise Unavailable(f"Vault at {self._server} is asked too much (429)")
            case status:
                raise Unavailable(f"Vault at {self._server} answers {status}")

    def _with(self, token: str, method: str, path: str) -> Answer:
        return self._server.ask(method, path, {**self._headers, "X-Vault-Token": token})


def _field(fields: Mapping[str, Any], key: str) -> str:
    if not key and len(fields) != 1:
        raise NotFound(f"it has {len(fields)} fields: say which by key")
    value = fields.get(key or next(iter(fields)))
    if value is None:
        raise NotFound(f"it has no field {key[:200]!r}")
    if not isinstance(value, str):
        raise Denied(f"its field {key[:200]!r} is no text")
    if len(value.encode("utf-8", "surrogatepass")) > MAX_SECRET_BYTES:
        raise Denied(f"it is larger than {MAX_SECRET_BYTES} bytes")
    return value
