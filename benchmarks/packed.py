"""What 10,000 tasks cost over the wire: bytes and seconds of the API's list and of the page, as they are and in gzip.

python benchmarks/packed.py [TASKS]

An embedded store, served by ``sked web`` and asked over loopback by one connection that keeps nothing between turns. Of
each turn the first look is at a state that nobody has asked for yet, the second at the same: what is packed is kept.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import api

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

TURNS = 3
SLOW = 10e6 / 8
"""Bytes a second of a line between sites."""


def main() -> None:
    api.TASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        backend = f"sqlite://{folder}/sked.db"
        store = open_store(backend, Plugins([]))
        ids = api.fill(store)
        command = [sys.executable, "-m", "sked_core.surface.cli", "web", "--listen", "127.0.0.1:0"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen([*command, "--backend", backend], stderr=log, env=os.environ)
        try:
            connection = http.client.HTTPConnection(urlsplit(api.url_of(Path(folder, "log"))).netloc)
            for turn in range(TURNS):
                for coding in ("identity", "gzip"):
                    failure = Failure(host="host-0", attempts=turn + 1, reason=coding)
                    store.commit([Put(keys.failure(ids[0]), encode(failure))])
                    time.sleep(3)  # what costs much is served again for up to that long
                    for what, look in (("list", the_list), ("page", the_page)):
                        for which in ("first", "again"):
                            begun = time.perf_counter()
                            size = look(connection, coding)
                            took = time.perf_counter() - begun
                            line = f"{turn + 1} {what}, {coding}, {which}: {size / 1e6:.2f} MB in {took:.2f} s"
                            print(f"{line}, {took + size / SLOW:.2f} s over 10 Mbit/s", flush=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            store.close()


def asked(connection: http.client.HTTPConnection, path: str, coding: str, accept: str) -> tuple[bytes, int]:
    """The body, unpacked, and its size on the wire."""
    connection.request("GET", path, headers={"accept-encoding": coding, "accept": accept})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body[:200]
    if answer.headers["content-encoding"] != "gzip":
        return body, len(body)
    return gzip.decompress(body), len(body)


def the_list(connection: http.client.HTTPConnection, coding: str) -> int:
    cursor, size, found = "", 0, 0
    while True:
        body, bytes_sent = asked(connection, f"/v1/tasks?limit=1000&cursor={cursor}", coding, "application/json")
        document = json.loads(body)
        size, found, cursor = size + bytes_sent, found + len(document["items"]), document["next"]
        if not cursor:
            assert found == api.TASKS
            return size


def the_page(connection: http.client.HTTPConnection, coding: str) -> int:
    body, size = asked(connection, "/tasks", coding, "text/html")
    assert b"</html>" in body
    return size


if __name__ == "__main__":
    main()
