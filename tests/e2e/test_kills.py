"""Kill anything at any moment: what runs goes on running, none twice, none lost."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from sked_core.interfaces.store import Delete
from sked_core.model import keys
from sked_core.runtime.stores.embedded import EmbeddedStore


def test_ten_kills_of_agent_and_scheduler_leave_the_same_processes(rig, manifest):
    agent, scheduler = rig.run("agent", host="a"), rig.run("scheduler")
    rig.apply(manifest(desired=5))
    rig.until("5 healthy", rig.healthy(5))
    before = rig.processes()
    assert [len(pids) for pids in before.values()] == [1] * 5
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print("seed", seed)
    for turn in range(10):
        victims = chance.choice(["agent", "scheduler", "both"])
        if victims != "scheduler":
            agent.kill()
            agent = rig.run("agent", host="a")
        if victims != "agent":
            scheduler.kill()
            scheduler = rig.run("scheduler")
        time.sleep(chance.uniform(0.0, 0.8))
        assert rig.processes() == before, f"turn {turn}, killed {victims}, seed {seed}"
    rig.until("5 healthy again", rig.healthy(5))
    assert rig.processes() == before


def test_kills_in_the_midst_of_starting_and_stopping_end_in_what_was_asked_for(rig, manifest):
    rig.run("scheduler")
    agent = rig.run("agent", host="a")
    chance = random.Random(7)
    rig.apply(manifest(desired=8))
    for count in (8, 3, 8, 1, 6):
        rig.sked("scale", "web", str(count))
        time.sleep(chance.uniform(0.05, 0.5))
        agent.kill()
        agent = rig.run("agent", host="a")
    rig.until("6 healthy", rig.healthy(6))
    tasks = {task["id"] for task in rig.items()}
    running = rig.until("as many processes as tasks", lambda: rig.processes().keys() == tasks and rig.processes())
    assert all(len(pids) == 1 for pids in running.values()), running


def test_sigterm_leaves_tasks_running_and_ends_cleanly(rig, manifest):
    combined = rig.run("combined", host="a")
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    assert combined.terminate() == 0
    assert rig.processes() == before
    assert "Traceback" not in combined.text()


def test_a_paused_agent_reads_before_it_acts(rig, manifest):
    rig.run("scheduler")
    agent = rig.run("agent", host="a")
    rig.apply(manifest(desired=3))
    rig.until("3 healthy", rig.healthy(3))
    agent.signal(signal.SIGSTOP)
    rig.sked("scale", "web", "1")
    rig.until("withdrawn", lambda: sum(not task["scheduled"] for task in rig.items()) == 2)
    assert len(rig.processes()) == 3
    agent.signal(signal.SIGCONT)
    rig.until("one left", rig.healthy(1))
    assert len(rig.processes()) == 1


def test_a_second_agent_of_the_same_host_is_refused(rig):
    rig.run("agent", host="a")
    rig.until("host known", lambda: rig.items("hosts"))
    second = rig.run("agent", host="a")
    assert second.wait() != 0
    assert "another agent of this host is running" in second.text()


def test_two_hundred_tasks_come_up_and_go_away(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=200))
    rig.until("200 healthy", rig.healthy(200))
    assert len(rig.processes()) == 200
    rig.sked("scale", "web", "0")
    rig.until("none left", lambda: rig.items() == [])
    assert rig.processes() == {}


def test_a_task_of_which_a_person_removed_one_key_is_stopped_and_issued_again(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    store = EmbeddedStore(Path(rig.backend.removeprefix("sqlite://")))
    store.commit([Delete(keys.host_task(rig.host("a"), "default-web-1-0"))])
    old = before["default-web-1-0"]
    rig.until("another process", lambda: rig.processes().get("default-web-1-0", old) != old)
    rig.until("2 healthy again", rig.healthy(2))
    assert rig.processes()["default-web-1-1"] == before["default-web-1-1"]
    store.close()
