"""The HTTP service discovery: one address that answers with the groups as they are."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sked_core.plugin import InvalidValue, beyond_this_machine

SECONDS = 10.0
"""For a request: who takes longer is left."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", re.IGNORECASE)


class Server(ThreadingHTTPServer):
    """Answers every GET with ``text``. ``address``: ``HOST:PORT`` of this machine; port 0 picks one."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        host, mark, port = address.rpartition(":")
        host = host.strip("[]")
        if not host or not mark or not port.isdecimal() or int(port) > 65535:
            raise InvalidValue(f'expected HOST:PORT, got "{address[:80]}"')
        if beyond_this_machine(host):
            hint = "put a server with TLS before it, or write a file where Prometheus runs: --write"
            raise InvalidValue(f"{host} can be reached by others, and nobody is asked who they are", hint=hint)
        self.text = ""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, int(port)), _Answer)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="sked-prometheus", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever went away, went away."""


class _Answer(BaseHTTPRequestHandler):
    server: Server
    timeout = SECONDS

    def do_GET(self) -> None:
        # A page in a browser may have a name of its own lead here; it is not to read what runs where.
        if not names_this_machine(self.headers.get_all("Host") or []):
            self.send_error(403)
            return
        body = self.server.text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as the library has it
        """Who asks is nobody's business."""


def names_this_machine(hosts: list[str]) -> bool:
    """Whether the Host headers of a request are one, and that is ``localhost`` or a loopback address, whatever the port
    (a tunnel has another). No other name counts: whoever owns it may have it lead here."""
    found = _HOST.fullmatch(hosts[0].strip()) if len(hosts) == 1 else None
    if found is None:
        return False
    host = found[1].strip("[]").lower()
    try:
        return host in ("localhost", "localhost.") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
