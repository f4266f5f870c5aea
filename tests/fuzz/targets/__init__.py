"""What is fuzzed: one module for each, named as ``scripts/fuzz`` names it.

Each has ``judge(data)``, which feeds bytes to Sked's own code and raises if anything but a documented error comes of
it, ``seeds()``, from which fuzzing begins, and ``MAX_BYTES``, beyond which inputs don't grow. ``mutate``, where there
is one, changes an input by its structure. None needs atheris: tests replay what was found without it.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
KEPT = Path(__file__).resolve().parent.parent / "kept"
TARGETS = tuple(sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py")))
