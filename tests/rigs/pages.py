"""The pages of the docs that are typed, and the machines that each of them is typed on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

from rigs.typist import Typist

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Machines: TypeAlias = Callable[[], AbstractContextManager[Typist]]


@contextlib.contextmanager
def _typist(env: Mapping[str, str], hosts: Mapping[str, Sequence[str]] | None = None) -> Iterator[Typist]:
    """One in a folder of its own, with nothing of this process's environment."""
    with tempfile.TemporaryDirectory(prefix="sked-typed-") as folder:
        typist = Typist(Path(folder), {"PATH": SYSTEM, "LANG": "C.UTF-8", **env}, hosts or {})
        try:
            yield typist
        finally:
            typist.end()


def installed() -> AbstractContextManager[Typist]:
    """This machine, with Sked as the tests have it."""
    return _typist({"PATH": f"{Path(sys.executable).parent}:{SYSTEM}"})


@contextlib.contextmanager
def clean() -> Iterator[Typist]:
    """A machine with Python and nothing else, where pip finds our packages, built just now, and what they need."""
    with tempfile.TemporaryDirectory(prefix="sked-wheels-") as house:
        packages = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
        options = ["--quiet", "--no-build-isolation", "--constraint", ROOT / "constraints.txt", "--wheel-dir", house]
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", *options, *packages], check=True, capture_output=True, timeout=240
        )
        with _typist({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": house, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}) as typist:
            yield typist


SESSIONS: Mapping[str, tuple[Sequence[str], Machines]] = {
    "tutorial": (("docs/tutorial.md",), clean),
    "placement": (("docs/what-if.md", "docs/explaining.md"), installed),
}
"""By name: the pages, which are typed one after the other, and what makes their machines."""
