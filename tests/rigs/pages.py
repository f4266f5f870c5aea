"""The pages of the docs that are typed, and the machines that each of them is typed on."""

from __future__ import annotations

import contextlib
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


SESSIONS: Mapping[str, tuple[Sequence[str], Machines]] = {
    "placement": (("docs/what-if.md", "docs/explaining.md"), installed),
}
"""By name: the pages, which are typed one after the other, and what makes their machines."""
