"""From an idea to plugins at work on a cluster, by the commands of docs/plugins/quickstart.md and from wheels alone."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from rigs.wheels import UNCOMPILED, only

ROOT = Path(__file__).resolve().parents[2]
JOURNEY = ROOT / "scripts" / "plugin-journey"
SECONDS = 1500


@pytest.mark.timeout(SECONDS + 60)
def test_an_executor_a_scheduler_and_a_store_are_written_built_and_at_work(house, tmp_path):
    process = subprocess.Popen(
        [JOURNEY, "--wheels", house],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | only(house) | UNCOMPILED | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
    assert process.returncode == 0, said[-12000:]
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_lies_is_found(wheels, tmp_path):
    page = tmp_path / "page.md"
    for text, why in (
        ("```sh\necho one >file\n```\n\n<!-- holds: grep -q one file -->\n", ""),
        ("```sh\nfalse\n```\n", "failed with 1"),
        (
            "In `a/b.py`:\n\n```sh\nmkdir a; echo one >a/b.py\n```\n\n```diff\n-two\n+three\n```\n",
            "has 0 places like this",
        ),
        ("```sh\nsleep 1000 &\ndisown\n```\n", "processes are left"),
    ):
        page.write_text(text)
        ran = subprocess.run(
            [JOURNEY, "--wheels", wheels[0].parent, "--page", page], capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode != 0) == bool(why), ran.stdout + ran.stderr
        assert why in ran.stdout + ran.stderr
