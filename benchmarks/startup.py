"""How long the command line takes to start, against the least that a click program needs.

python benchmarks/startup.py [TURNS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import take_turns, verdict

PYTHON = sys.executable
SKED = str(Path(PYTHON).with_name("sked"))


def main(turns: int) -> None:
    with tempfile.TemporaryDirectory() as state:
        quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"XDG_STATE_HOME": state}, "check": True}
        peer = "python -c 'import click'"
        found = take_turns(
            {
                peer: lambda: subprocess.run([PYTHON, "-c", "import click"], **quiet),
                "sked --help": lambda: subprocess.run([SKED, "--help"], **quiet),
                "sked tasks": lambda: subprocess.run([SKED, "tasks"], **quiet),
            },
            turns=turns,
        )
    for figure in found.values():
        print(figure)
    print(verdict(found["sked --help"], found[peer], at_most=2))
    print(verdict(found["sked tasks"], found[peer], at_most=4))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
