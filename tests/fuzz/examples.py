"""What fuzzing begins with: records as docs/keys.md shows them, manifests of ``examples`` and ``tests/corpus``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def records() -> Iterator[bytes]:
    """One JSON object of every kind that a store holds."""
    for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "keys.md").read_text(), re.DOTALL):
        yield block.strip().encode()


def manifests() -> Iterator[bytes]:
    """Small ones, good and bad."""
    for folder in ("examples", "tests/corpus/good", "tests/corpus/bad"):
        for file in sorted((ROOT / folder).iterdir()):
            if file.suffix in (".yml", ".yaml", ".json") and file.stat().st_size < 4096:
                yield file.read_bytes()
