"""The kit of events tells all that there are, and plugins know them."""

from __future__ import annotations

import re
from pathlib import Path

from sked_core.plugin import EVENT_NAMES

ROOT = Path(__file__).resolve().parents[2]


def test_the_kit_tells_every_event_of_the_docs():
    cells = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    assert set(EVENT_NAMES) == {name for cell in cells for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", cell)}
