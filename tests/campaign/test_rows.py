"""Every row of the fault matrix once, on real stores, engines and processes; each fails by its name."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from campaign.rows import Row, load
from campaign.stage import Stage, busybox, serving
from rigs.needs import ROOT

ROWS = load()
LONGER = int(float(os.environ.get("SKED_CAMPAIGN_SECONDS", "0")))
"""What the random mix is asked to take: a mark's bound counts, whatever the command line says."""


@pytest.mark.parametrize("one", ROWS.values(), ids=ROWS)
@pytest.mark.timeout(420 + 3 * LONGER)
def test_row(one: Row, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(f"{one.store}_binary")
    if "docker" in one.needs:
        request.getfixturevalue("docker_engine")
        busybox()
    began = time.monotonic()
    with serving(one.store, tmp_path, **one.settings) as server, Stage(server, tmp_path, one.terms) as stage:
        one.play(stage)
        logs = stage.logs()
    _record(one, stage, time.monotonic() - began)
    assert stage.monitor.failure is None
    assert stage.monitor.looks > 10, "hardly anything was seen"
    assert not stage.violations, "\n".join([*map(str, stage.violations[:30]), logs])


def _record(one: Row, stage: Stage, seconds: float) -> None:
    """One line, where SKED_CAMPAIGN_RECORD says."""
    target = os.environ.get("SKED_CAMPAIGN_RECORD")
    if not target:
        return
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    line: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.strip(),
        "row": one.name,
        "store": one.store,
        "seconds": round(seconds, 1),
        "recovery": round(stage.recovery, 1),
        "looks": stage.monitor.looks,
        "violations": len(stage.violations),
    }
    with open(target, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
