"""``scripts/campaign``: rows by name, all of them, or a long mix of faults by seed; and the page about them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from campaign import page
from campaign.rows import load
from rigs.needs import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/campaign", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ci", action="store_true", help="each row once, four at a time")
    what.add_argument("--rows", metavar="F1,F9", help="these rows")
    what.add_argument("--nightly", action="store_true", help="faults and changes at random, for long")
    what.add_argument("--table", action="store_true", help="write the record into docs/fault-campaign.md")
    what.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=4, help="rows at a time")
    parser.add_argument("--record", metavar="FILE", help="add a line for each run, as to docs/campaign.jsonl")
    given = parser.parse_args()
    rows = load()
    if given.list:
        print("\n".join(f"{one.name:5} {one.store:7} {one.fault}" for one in rows.values()))
        return 0
    if given.table:
        page.write()
        return 0
    names = ["F50"] if given.nightly else given.rows.split(",") if given.rows else list(rows)
    unknown = sorted(set(names) - rows.keys())
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}: see --list")
    env = dict(os.environ)
    if given.record:
        env["SKED_CAMPAIGN_RECORD"] = os.path.abspath(given.record)
    if given.nightly:
        seconds = given.minutes * 60
        env |= {"SKED_CAMPAIGN_SEED": str(given.seed), "SKED_CAMPAIGN_SECONDS": str(seconds)}
    tests = [f"tests/campaign/test_rows.py::test_row[{name}]" for name in names]
    timeout = [f"--timeout={int(given.minutes * 60 + 1200)}"] if given.nightly else []
    workers = ["-n", str(min(given.jobs, len(tests)))] if len(tests) > 1 else []
    command = [sys.executable, "-m", "pytest", "-q", *workers, *timeout, *tests]
    return subprocess.run(command, cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
