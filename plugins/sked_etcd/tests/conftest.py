"""An etcd for these tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sked_core.plugin import Unavailable
from sked_etcd.store import EtcdStore


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("etcd")
    if binary is None:
        pytest.skip("there is no etcd program on PATH")
    folder: Path = tmp_path_factory.mktemp("etcd")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        client, peer = (f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(binary, "--name", "test", "--data-dir", str(folder / "data")),
                *("--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"),
                *("--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"),
                *("--initial-cluster", f"test=http://{peer}"),
            ],
            stdout=log,
            stderr=log,
        )
    url, deadline = f"etcd://{client}", time.monotonic() + 30
    while True:
        store = EtcdStore(url)
        try:
            store.read("probe")
            break
        except Unavailable:
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        finally:
            store.close()
    yield url
    process.kill()
    process.wait(10)
