"""A real Prometheus finds tasks by both ways, scrapes them, and forgets those that are gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from rigs.local import free_ports
from rigs.needs import missing, program
from rigs.sked import Rig, service

CONFIG = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: file
    file_sd_configs: [{{files: ["{file}"], refresh_interval: 1s}}]
  - job_name: http
    http_sd_configs: [{{url: "{url}", refresh_interval: 1s}}]
    relabel_configs:
      - {{source_labels: [__meta_sked_tags], regex: ".*,shown,.*", target_label: shown, replacement: "yes"}}
"""


@pytest.fixture
def rig(tmp_path: Path):
    """With the package installed for its commands, whether or not it is in this environment."""
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    info = tmp_path / "path" / "sked_prometheus-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sked-prometheus\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[sked]\nprometheus = sked_prometheus.plugin\n")
    paths = (str(info.parent), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", ""))
    rig.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    yield rig
    rig.clean_up()


@pytest.fixture
def started(tmp_path: Path):
    """``started(name, *command, env=…)``: a process, ended after the test; its log is the file that is returned."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str, **more: object) -> Path:
        log = tmp_path / f"{name}.log"
        with log.open("wb") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, **more))
        return log

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def _prometheus() -> str:
    beside = Path(program("promtool", "prometheus")).with_name("prometheus")
    found = shutil.which("prometheus") or (str(beside) if beside.exists() else None)
    return found or missing("promtool", "there is no prometheus program beside promtool")


def test_a_real_prometheus_scrapes_the_tasks_and_forgets_those_that_are_gone(rig: Rig, started, tmp_path: Path):
    binary = _prometheus()
    (tmp_path / "www" / "deep").mkdir(parents=True)
    (tmp_path / "www" / "deep" / "figures").write_text("shop_orders_total 7\n")
    rig.run("combined", "--address", "127.0.0.1", "--tag", "zone=a", host="a")
    serve = f"exec {sys.executable} -m http.server $PORT --bind 127.0.0.1 --directory {tmp_path / 'www'}"
    rig.apply(service("web", desired=2, start=serve, provide_port=True, tags=["prometheus:/deep/figures", "shown"]))
    rig.until("two healthy tasks", rig.healthy(2))
    file, port, own = tmp_path / "tasks.json", *free_ports(2)
    printed = json.loads(rig.sked("prometheus", "targets", "--healthy"))
    assert len(printed) == 2
    assert printed[0]["labels"]["__meta_sked_host_tag_zone"] == "a"

    sked = [str(Path(sys.executable).parent / "sked"), "prometheus", "targets"]
    log = started("targets", *sked, "--write", str(file), "--watch", "--listen", f"127.0.0.1:{port}", env=rig.env)
    rig.until("it serves", lambda: b"serving on" in log.read_bytes())
    assert sorted(one["targets"] for one in json.loads(file.read_text())) == sorted(one["targets"] for one in printed)

    (tmp_path / "prometheus.yml").write_text(CONFIG.format(file=file, url=f"http://127.0.0.1:{port}/"))
    options = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    started("prometheus", binary, *options, f"--web.listen-address=127.0.0.1:{own}")

    def asked(path: str) -> dict:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/{path}", timeout=30) as answer:
                return json.load(answer)["data"]
        except OSError:
            return {}

    def found(job: str) -> list[dict[str, str]]:
        query = urllib.parse.quote(f'shop_orders_total{{job="{job}"}}')
        return [one["metric"] for one in asked(f"query?query={query}").get("result", ())]

    for job in ("file", "http"):
        metrics = rig.until(f"both are scraped by {job}", lambda job=job: len(found(job)) == 2 and found(job))
        for metric in metrics:
            told = {name: metric[name] for name in ("cluster", "service", "version")}
            assert told == {"cluster": "default", "service": "web", "version": "1"}
            assert metric["task"].startswith("default-web-1-")
            assert metric["host"] == rig.host("a")
            assert metric.get("shown") == ("yes" if job == "http" else None)

    rig.sked("scale", "web", "1")

    def left() -> bool:
        jobs = [one["labels"]["job"] for one in asked("targets?state=active").get("activeTargets", ())]
        return sorted(jobs) == ["file", "http"]

    rig.until("the other one is forgotten", left)
