"""What long-running processes log: real ones, and every line of it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rigs.sked import PATIENCE, Rig, service
from sked_core.runtime.about import about
from sked_core.serving.logs import JsonLines, TextLines

HOSTILE = 'printf \'\\033[2Jhostile\\n{"level":"forged"}\\r\\nline\' >&2; exit 3'


@pytest.fixture
def rig(tmp_path: Path):
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


def test_every_line_of_a_life_in_json_is_an_object_that_says_what_it_is_about(rig: Rig) -> None:
    proc = rig.run("combined", "--verbose", "--log-format", "json", host="h")
    rig.hosts_ready(1)
    rig.apply(service("well", desired=1))
    rig.apply(service("ill", desired=1, cluster={"name": "other"}, container={"setup": [HOSTILE]}))
    rig.until("a start that failed", lambda: "did not start" in proc.text())
    rig.until("one that works", lambda: "started default-well-1-0" in proc.text())
    rig.sked("scale", "well", "0")
    rig.until("its end", lambda: "default-well-1-0 is forgotten" in proc.text() or len(rig.items()) == 1)
    assert proc.terminate() == 0

    records = [json.loads(line) for line in proc.text().splitlines()]
    for record in records:
        assert {"time", "level", "logger", "message"} <= record.keys() <= {
            "time", "level", "logger", "message", "task", "service", "host", "exception",
        }, record  # fmt: skip
        assert datetime.fromisoformat(record["time"]).tzinfo == UTC
        assert record["level"] in ("debug", "info", "warning", "error", "critical")
        assert record["host"] == rig.host("h")
        for service_name in ("well", "ill"):
            if f"-{service_name}-1-0" in record["message"] and record["logger"] == "sked.agent":
                assert record["task"].endswith(f"-{service_name}-1-0"), record
                assert record["service"] == service_name, record
    failed = next(record for record in records if "did not start" in record["message"])
    assert "\x1b[2Jhostile" in failed["message"], "it is quoted as it is: JSON keeps it apart"
    assert {"service": "ill"}.items() <= failed.items() and failed["level"] == "warning"
    planned = [record for record in records if record["logger"] == "sked.scheduler" and "service" in record]
    assert {record["service"] for record in planned} == {"well", "ill"}
    assert "store sqlite://" in records[0]["message"]


def test_text_is_one_line_for_each_record_whatever_it_quotes(rig: Rig) -> None:
    proc = rig.run("combined", "--verbose", host="h")
    rig.hosts_ready(1)
    rig.apply(service("ill", desired=1, container={"setup": [HOSTILE]}))
    rig.until("a start that failed", lambda: "did not start" in proc.text())
    assert proc.terminate() == 0
    first, policy, *lines = proc.text().splitlines()
    assert first.startswith("sked: store sqlite://")
    assert policy.startswith("sked: POLICY development")
    for line in lines:
        datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")
        assert line.isprintable()


@pytest.mark.parametrize(
    ("how", "env"),
    [(["--log-format", "json"], {}), ([], {"SKED_LOG_FORMAT": "json"}), (["--config", "sked.toml"], {})],
    ids=["flag", "environment", "file"],
)
def test_a_process_that_can_not_go_on_says_so_in_the_same_format(tmp_path, how, env) -> None:
    (tmp_path / "sked.toml").write_text('log_format = "json"\n')
    command = [sys.executable, "-m", "sked_core.surface.cli", "scheduler", "--shadow", "nosuch", *how]
    url = f"sqlite://{tmp_path / 'sked.db'}"
    environment = {**_clean(), "SKED_BACKEND": url, **env}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=PATIENCE)
    assert ran.returncode == 1
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    assert records[-1]["level"] == "critical"
    assert 'no scheduler "nosuch" is installed' in records[-1]["message"]


def _clean() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("SKED_")}


def test_another_format_is_a_mistake_of_who_calls(sked) -> None:
    assert sked("scheduler", "--log-format", "xml").code == 2


def test_a_file_with_another_format_is_refused_with_its_place(sked, tmp_path) -> None:
    (tmp_path / "sked.toml").write_text('host = "h"\nlog_format = "xml"\n')
    ran = sked("scheduler", "--config", str(tmp_path / "sked.toml"))
    assert ran.code == 3
    assert f"{tmp_path}/sked.toml:2:1: log_format" in ran.err


def _record(message: str, **more: object) -> logging.LogRecord:
    record = logging.LogRecord("sked.agent", logging.WARNING, __file__, 1, message, (), None)
    vars(record).update(more)
    return record


def test_an_exception_is_a_field_of_json_and_lines_of_text() -> None:
    try:
        raise ValueError("no\x1b[2Jgood")
    except ValueError:
        record = _record("it failed", exc_info=sys.exc_info())
    said = json.loads(JsonLines().format(record))
    assert said["exception"].splitlines()[0] == "Traceback (most recent call last):"
    assert said["exception"].endswith("no\x1b[2Jgood")
    assert "\x1b" not in JsonLines().format(record)
    lines = TextLines().format(record).splitlines()
    assert len(lines) > 3 and all(line.isprintable() for line in lines)


def test_what_a_record_says_of_itself_counts_more_than_what_the_thread_is_busy_with() -> None:
    with about(service="web", task="t-1"), about(task="t-2", host=""):
        said = json.loads(JsonLines("h-1").format(_record("x", service="api")))
    assert (said["task"], said["service"], said["host"]) == ("t-2", "api", "h-1")
    assert "task" not in json.loads(JsonLines().format(_record("x")))
