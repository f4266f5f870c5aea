"""What the pages on placement show is what a live cluster of five agents prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_show_what_a_live_cluster_prints() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "walk-placement"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
