"""Simulated clusters by plain seeds: nothing that must hold is broken, whatever the dice say; and the same seed gives
the same story. ``scripts/simulate`` runs as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from sim.replays import REPLAYS, Replay
from sked_core.testing.sim.run import SHORT_STEPS, Result, run, told
from sked_core.testing.sim.store import KINDS

SHORT_SEEDS, BATCH = 160, 20
LONG_SEEDS, LONG_STEPS = 2, 200


def check(result: Result) -> None:
    assert result.violation is None, told(result)


@pytest.mark.parametrize("store", KINDS)
@pytest.mark.parametrize("first", range(0, SHORT_SEEDS, BATCH))
def test_short_runs(store: str, first: int) -> None:
    for seed in range(first, first + BATCH):
        check(run(seed, store=store))


@pytest.mark.parametrize("store", KINDS)
@pytest.mark.parametrize("seed", range(1_000_000, 1_000_000 + LONG_SEEDS))
def test_long_runs(store: str, seed: int) -> None:
    check(run(seed, store=store, steps=LONG_STEPS))


@pytest.mark.parametrize("replay", REPLAYS, ids=str)
def test_what_was_found_once(replay: Replay) -> None:
    check(run(replay.seed, store=replay.store, steps=replay.steps))


def test_a_seed_replays_exactly_in_any_process() -> None:
    code = (
        "from sked_core.testing.sim.run import run\n"
        "for seed in range(3): print('\\n'.join(run(seed, store='consul', steps=30, telling=True).story))"
    )
    stories = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert stories[0] == stories[1]
    assert len(stories[0].splitlines()) > 100


def test_telling_changes_nothing() -> None:
    silent, loud = run(4, store="etcd", steps=SHORT_STEPS), run(4, store="etcd", steps=SHORT_STEPS, telling=True)
    assert (silent.acts, silent.seconds, silent.counts) == (loud.acts, loud.seconds, loud.counts)
    assert loud.story and not silent.story


def test_many_processes_simulate_at_once() -> None:
    with ProcessPoolExecutor(2) as pool:
        for result in pool.map(run, range(2)):
            check(result)


def test_the_command_says_what_it_ran() -> None:
    command = [
        sys.executable,
        "-m",
        "sked_core.testing.sim",
        "--store",
        "etcd",
        "--seed",
        "3",
        "--seeds",
        "2",
        "--story",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "2 runs" in done.stdout
    assert "0 violations" in done.stdout
    assert "cluster-years" in done.stdout
    assert "starts default-web-1-0" in done.stdout
