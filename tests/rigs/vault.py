"""A server that answers as the API documentation of Vault and OpenBao has it, and no more: neither can be had here."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hvs.documented-token"


class Documented:
    """A server's state: secrets with their versions, tokens that are valid, and what else it may be up to."""

    def __init__(self) -> None:
        self.secrets: dict[str, list[dict[str, str] | None]] = {}
        """Versions by path, None for a deleted one."""
        self.tokens = {TOKEN}
        self.forbidden: set[str] = set()
        self.answers: dict[str, tuple[int, bytes]] = {}
        """What a path answers instead."""
        self.sealed = False
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.logins: list[dict[str, str]] = []
        self.lease = 1200

    def keep(self, name: str, value: str | None) -> None:
        self.secrets.setdefault(f"secret/data/{name}", []).append(None if value is None else {"value": value})

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        self.asked.append((method, path, headers))
        path = path.removeprefix("/v1/").partition("?")[0]
        if path in self.answers:
            return self.answers[path]
        if path == "sys/health":
            return (503 if self.sealed else 200), {"initialized": True, "sealed": self.sealed, "standby": False}
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if path.startswith("auth/") and path.endswith("/login"):
            given = json.loads(body)
            self.logins.append(given)
            if given != {"role_id": "sked", "secret_id": "right"}:
                return 400, {"errors": ["invalid role or secret ID"]}
            token = f"hvs.login-{len(self.logins)}"
            self.tokens.add(token)
            auth = {"client_token": token, "lease_duration": self.lease, "renewable": True, "policies": ["default"]}
            return 200, {"auth": auth, "data": None}
        token = headers.get("X-Vault-Token", "")
        if not token:
            return 400, {"errors": ["missing client token"]}
        if token not in self.tokens:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        if path == "auth/token/lookup-self":
            return 200, {"data": {"policies": ["default"], "ttl": 2764790}}
        if path in self.forbidden:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if method != "GET":
            return self._changed(method, path, body)
        return self._secret(path)

    def _changed(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "POST" and path.startswith("secret/data/"):
            versions = self.secrets.setdefault(path, [])
            versions.append(json.loads(body)["data"])
            metadata = {"created_time": "2026-03-22T02:36:43.986Z", "deletion_time": "", "version": len(versions)}
            return 200, {"data": {**metadata, "custom_metadata": None, "destroyed": False}}
        if method == "DELETE" and path.startswith("secret/metadata/"):
            self.secrets.pop(path.replace("/metadata/", "/data/", 1), None)
            return 204, b""
        return 405, {"errors": ["unsupported operation"]}

    def _secret(self, path: str) -> tuple[int, Any]:
        versions = self.secrets.get(path)
        if not versions:
            return 404, {"errors": []}
        metadata = {
            "created_time": f"2026-03-22T02:24:{len(versions):02}.945319214Z",
            "custom_metadata": None,
            "deletion_time": "" if versions[-1] is not None else "2026-03-22T02:36:43.986212308Z",
            "destroyed": False,
            "version": len(versions),
        }
        data = {"data": versions[-1], "metadata": metadata}
        wrapped = {"request_id": "d", "lease_id": "", "renewable": False, "lease_duration": 0, "auth": None}
        return (200 if versions[-1] is not None else 404), {**wrapped, "data": data, "warnings": None}


def serving(documented: Documented, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    """It, listening on the loopback interface until its ``shutdown``."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = documented.answer(self.command, self.path, dict(self.headers), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:9/v1/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - as the library has it

        def log_message(self, *_: Any) -> None:
            """Nothing: pytest shows what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
