"""The command behind scripts/history: runs, judges, prints Markdown. Exits 1 if anything that must hold did not."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from history.engines import engine
from history.report import as_markdown, put_into
from history.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/history", description="Prove that locks and writes hold.")
    parser.add_argument("--backend", choices=["embedded", "consul", "etcd"], required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults; settling comes on top")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedulers", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="an empty folder for all records and logs")
    parser.add_argument("--into", type=Path, help="a page of Markdown whose section on this backend is replaced")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sked-history-")))
        folder.mkdir(parents=True, exist_ok=True)
        result = run(
            engine(chosen.backend, folder),
            folder,
            backend=chosen.backend,
            seconds=chosen.minutes * 60,
            seed=chosen.seed,
            schedulers=chosen.schedulers,
        )
    section = as_markdown(result)
    print(section)
    if chosen.into:
        chosen.into.write_text(put_into(chosen.into.read_text(), section))
    return 0 if result.proven else 1


if __name__ == "__main__":
    sys.exit(main())
