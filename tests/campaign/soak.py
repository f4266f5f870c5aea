"""An hour of constant change and faults, with a sample of what everything uses every five seconds."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from campaign import resources
from campaign.judge import Terms
from campaign.mix import HOSTS, LOST_AFTER_SECONDS, PORTS, SCHEDULERS, Mix
from campaign.stage import Stage, serving
from rigs.needs import ROOT

INTERVAL_SECONDS = 5.0
RECORD = ROOT / "docs" / "soak.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--containers", type=int, default=6, help="how many of the tasks run in Docker")
    parser.add_argument("--backend", choices=["consul", "etcd"], default="consul")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sked-soak-"))
    print(f"soak: files in {folder}", flush=True)
    kept = False
    try:
        with (
            serving(given.backend, folder) as server,
            Stage(server, folder, Terms(most_lost=2, lost_after=LOST_AFTER_SECONDS)) as stage,
        ):
            (folder / "tmp").mkdir()
            stage.rig.env["TMPDIR"] = str(folder / "tmp")
            record = _play(stage, given)
        given.record.write_text(json.dumps(record) + "\n")
        kept = bool(record["violations"] or record["unsettled"])
        print(json.dumps({k: v for k, v in record.items() if k != "series"}, indent=1))
        uneven = [name for name, well in record["flat"].items() if not well]
        print("not flat:", uneven)
        return 1 if kept or uneven else 0
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _play(stage: Stage, given: argparse.Namespace) -> dict[str, object]:
    mix = Mix(stage, given.seed, tasks=given.tasks, containers=given.containers)
    series: dict[str, list[float]] = {}
    done = threading.Event()
    mix.begin()
    began = time.monotonic()
    sampler = threading.Thread(target=_sample, args=(stage, series, done), daemon=True)
    sampler.start()
    unsettled = ""
    try:
        mix.run(given.minutes * 60)
        mix.end()
    except AssertionError as error:
        unsettled = str(error)[:20_000]
        print(unsettled, file=sys.stderr)
    done.set()
    sampler.join(60)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.strip(),
        "backend": given.backend,
        "seed": given.seed,
        "seconds": round(time.monotonic() - began),
        "interval": INTERVAL_SECONDS,
        "tasks": given.tasks,
        "containers": given.containers,
        "faults": dict(mix.told.faults),
        "changes": dict(mix.told.changes),
        "looks": stage.monitor.looks,
        "violations": [str(one) for one in stage.violations],
        "unsettled": unsettled,
        "recovery": round(stage.recovery, 1),
        "flat": resources.judged(series),
        "series": series,
    }


def _sample(stage: Stage, series: dict[str, list[float]], done: threading.Event) -> None:
    ever: set[str] = set()
    while not done.wait(INTERVAL_SECONDS):
        tasks = frozenset(one.first[0] for one in stage.monitor.history[-1].instances)
        points = {"machine": resources.of_machine(stage, ever) or {}}
        for name in (*HOSTS, *SCHEDULERS):
            proc = stage.procs[name]
            points[name] = (proc.alive() and resources.of_process(proc.pid, tasks)) or {}
        for whose, point in points.items():
            for what, value in point.items():
                series.setdefault(f"{whose} {what}", []).append(value)


assert set(PORTS) == set(HOSTS)

if __name__ == "__main__":
    sys.exit(main())
