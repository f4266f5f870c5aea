"""What ``sked web`` shows to Prometheus and tells systemd: the real process."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rigs.sked import PATIENCE, SKED, Proc, Rig
from sked_core.runtime.metrics import catalog
from sked_web.watched import CATALOG


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


def start(rig: Rig, **env: str) -> tuple[Proc, str]:
    proc = Proc([str(SKED), "web", "--listen", "127.0.0.1:0"], rig.folder / "web.log", rig.env | env)
    rig.procs.append(proc)
    found = rig.until("where it serves", lambda: re.search(r"serving on (http://\S+)", proc.text()))
    return proc, found[1]


def shown(url: str) -> dict[str, float]:
    """Every series by its name, with ``NAME{label=value}`` for those that have labels."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "le")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_it_shows_its_answers_its_streams_and_its_calls_of_the_store(rig: Rig) -> None:
    proc, url = start(rig)
    rig.until("the state", lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
    assert httpx.get(f"{url}/v1/tasks", timeout=60).status_code == 200
    assert httpx.get(f"{url}/v1/services/nosuch", timeout=60).status_code == 404
    with httpx.stream("GET", f"{url}/v1/stream", timeout=60) as stream:
        assert stream.status_code == 200
        found = shown(url)
        assert found["sked_web_streams"] == 1
    rig.until("the stream's end", lambda: shown(url)["sked_web_streams"] == 0)
    assert found["sked_web_answer_duration_seconds_count{code=200,method=GET}"] >= 3
    assert found["sked_web_answer_duration_seconds_count{code=404,method=GET}"] == 1
    assert found["sked_web_stale_seconds"] == 0
    assert found["sked_store_call_duration_seconds_count{operation=read}"] > 0
    assert found["sked_loop_late_seconds{loop=http}"] < 60 and found["sked_loop_late_seconds{loop=mirror}"] < 60
    ours = {re.sub(r"(_bucket|_count|_sum)?(\{.*)?$", "", name) for name in found if name.startswith("sked_")}
    assert ours <= catalog().keys() | CATALOG.keys()
    assert CATALOG.keys() <= ours
    assert proc.terminate() == 0


def test_systemd_is_told_that_it_is_ready_lives_and_ends(rig: Rig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        proc, _ = start(rig, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
        heard: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while heard.count("WATCHDOG=1") < 3:
            assert time.monotonic() < deadline, heard
            heard += systemd.recv(4096).decode().splitlines()
        assert "READY=1" in heard
        proc.signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += systemd.recv(4096).decode().splitlines()
        assert proc.wait() == 0
