"""``scripts/simulate``: simulated clusters by seed, and what came of them."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import click

from sked_core.testing.sim.run import SHORT_STEPS, Result, run, told
from sked_core.testing.sim.store import KINDS

YEAR_SECONDS = 365.25 * 24 * 3600
BATCH = 20
"""How many seeds a process is given at a time."""


def _runs(seeds: Iterable[int], stores: tuple[str, ...], steps: int, *, telling: bool = False) -> list[Result]:
    return [run(seed, store=store, steps=steps, telling=telling) for seed in seeds for store in stores]


def _all(first: int, count: int, stores: tuple[str, ...], steps: int, jobs: int, telling: bool) -> Iterator[Result]:
    batches = [range(start, min(start + BATCH, first + count)) for start in range(first, first + count, BATCH)]
    work = partial(_runs, stores=stores, steps=steps, telling=telling)
    if jobs == 1:
        for batch in batches:
            yield from work(batch)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for results in pool.map(work, batches):
            yield from results


@click.command()
@click.option("--store", type=click.Choice([*KINDS, "both"]), default="both", help="Which store is simulated.")
@click.option("--seed", type=int, default=0, help="The first seed.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="How many seeds, one after the other.")
@click.option("--steps", type=click.IntRange(0), default=SHORT_STEPS, help="Actions and faults in each run.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Processes at work.")
@click.option("--story", is_flag=True, help="Print all that happens.")
def main(store: str, seed: int, seeds: int, steps: int, jobs: int, story: bool) -> None:
    """Simulate clusters of real schedulers and agents, and judge them after every step. Ends with 1 if anything that
    must hold did not. A seed replays exactly."""
    logging.getLogger("sked").setLevel(logging.CRITICAL + 1)  # the story tells it better
    stores = tuple(KINDS) if store == "both" else (store,)
    begun = time.perf_counter()
    count = steps_done = acts = 0
    seconds = spent = 0.0
    violations: list[Result] = []
    done: Counter[str] = Counter()
    for result in _all(seed, seeds, stores, steps, jobs, story):
        count, steps_done, acts = count + 1, steps_done + result.steps, acts + result.acts
        seconds, spent = seconds + result.seconds, spent + result.spent
        done.update(result.counts)
        for line in result.story:
            click.echo(line)
        if result.violation is not None:
            violations.append(result)
            click.echo(told(result))
    years, minutes = seconds / YEAR_SECONDS, max(spent, 1e-9) / 60
    click.echo(f"{count} runs, {steps_done} steps, {acts} acts of processes, each judged; {len(violations)} violations")
    click.echo(
        f"simulated: {years:.4f} cluster-years; {spent:.1f} CPU s in {time.perf_counter() - begun:.1f} s;"
        f" {years / minutes:.5f} cluster-years and {count / minutes:.0f} runs per CPU minute"
    )
    click.echo("what was done: " + ", ".join(f"{number} {name}" for name, number in sorted(done.items())))
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
