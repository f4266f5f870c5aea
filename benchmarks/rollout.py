"""What a roll-out costs its clients: requests that failed while 10 Docker tasks were replaced, and how long that took.

python benchmarks/rollout.py [TURNS] [--rate 200] [--at-once 1]

A load of RATE requests per second, each over a connection of its own, goes turn by turn to the instances that are in
service; none is tried twice. Sked (agent and scheduler in one process, a Consul of its own) replaces 10 tasks with
``max`` AT_ONCE above ``desired``: with a ``shutdown_delay`` of DELAY, and without. Docker Swarm does the same with
``docker service update --update-order start-first --update-parallelism AT_ONCE``. They take turns in one run, with the
same image, command, way to stop and interval of checks.

Clients of Sked go by Consul's passing instances (a blocking query). Clients of Swarm go by the tasks' own ports
(published in mode host), in the way that is best for Swarm: an instance counts from the engine's event that it is
healthy on, and no more from the event of its first signal on. Swarm's routing mesh is not used: it needs IPVS in the
kernel. Time runs from before the command to the engine's last ``die`` event of an old container.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from bed import IMAGE, Bed, Starts, bed, image, until
from engines import fresh  # puts the tests' rigs on the path

from rigs.traffic import Address, Passing, Traffic

TASKS = 10
DELAY = "300ms"
"""Far longer than a blocking query takes to tell a client that a task has left; each step waits for it."""
BEFORE_SECONDS, AFTER_SECONDS = 2.0, 1.0
"""For so long the load goes on before and after the roll-out."""
SERVE = """
echo version $V >/tmp/index.html
httpd -f -p 80 -h /tmp & server=$!
trap 'kill $server; sleep 0.3; exit 0' TERM
wait $server
"""


@dataclass(frozen=True, slots=True)
class Done:
    """One roll-out under load."""

    seconds: float
    sent: int
    failed: int
    why: str


def under_load(
    targets: Callable[[], Sequence[Address]],
    starts: Starts,
    old: set[str],
    update: Callable[[], object],
    rate: float,
) -> Done:
    """Call ``update`` under load, until every container in ``old`` (names) has died. Raises SystemExit if the load
    could not be kept up: then its figures say nothing."""
    with Traffic(targets, rate=rate) as load:
        until("a steady load", lambda: load.seconds > BEFORE_SECONDS and load.sent > rate)
        begun = time.time()
        update()

        def died() -> dict[str, float]:
            return {about["name"]: at for did, about, at in list(starts.seen) if did == "die" and about["name"] in old}

        until("the end of the old tasks", lambda: died().keys() == old)
        time.sleep(AFTER_SECONDS)
    if load.late > 1:
        raise SystemExit(f"requests were sent up to {load.late:.1f} s late: the machine is too busy for this load")
    if "version 2" not in load.answers:
        raise SystemExit(f"the new version gave no answer: {load}")
    return Done(max(died().values()) - begun, load.sent, len(load.failures), str(load))


class Healthy:
    """Addresses of the healthy containers with a label, as the engine's events tell of them."""

    def __init__(self, client: docker.DockerClient, label: str) -> None:
        self._client, self._label = client, label
        self._addresses: dict[str, Address] = {}
        self.targets: Sequence[Address] = ()
        self._stream = client.events(decode=True, filters={"type": "container", "label": label})
        threading.Thread(target=self._read, daemon=True).start()

    def __call__(self) -> Sequence[Address]:
        return self.targets

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for event in self._stream:
                if event["Action"] == "health_status: healthy":
                    found = self._client.api.inspect_container(event["id"])["NetworkSettings"]["Ports"]
                    self._addresses[event["id"]] = ("127.0.0.1", int(found["80/tcp"][0]["HostPort"]))
                elif event["Action"] in ("kill", "die"):
                    self._addresses.pop(event["id"], None)
                self.targets = list(self._addresses.values())

    def close(self) -> None:
        self._stream.close()


def names(client: docker.DockerClient, label: str) -> set[str]:
    return {one["Names"][0].removeprefix("/") for one in client.api.containers(filters={"label": label})}


def sked(where: Bed, http: str, starts: Starts, client: docker.DockerClient, given: Given, delay: str) -> Done:
    name = f"r-{secrets.token_hex(3)}"

    def declare(version: int) -> None:
        executor = {"image": IMAGE, "cmd": ["sh", "-c", SERVE], "container_port": 80, "env": {"V": str(version)}}
        checks = [{"http": "http://127.0.0.1:$PROVIDED_PORT/", "interval": "1s"}]
        definition: dict[str, Any] = {
            "name": name,
            "version": version,
            "provide_port": True,
            "containers": [{"name": "web", "type": "docker", "executor": executor, "checks": checks}],
        }
        if delay:
            definition["shutdown_delay"] = delay
        bounds = {"desired": TASKS, "min": TASKS, "max": TASKS + given.at_once}
        manifest = {
            "clusters": [{"name": f"c-{name}", "services": [name]}],
            "services": [{"name": name, "task_name": name, "task_version": version, **bounds}],
            "task_definitions": [definition],
        }
        path = where.folder / f"{name}.json"
        path.write_text(json.dumps(manifest))
        with contextlib.redirect_stderr(None):
            where.sked("apply", "-f", str(path))

    declare(1)
    passing = Passing(http, f"c-{name}-{name}")
    until("10 that pass", lambda: len(passing.targets) == TASKS)
    old = names(client, f"sked.host={where.host}")
    done = under_load(passing, starts, old, lambda: declare(2), given.rate)
    passing.close()
    with contextlib.redirect_stderr(None):
        where.sked("delete", f"service/{name}", "--cascade", "-y")
    until("removal", lambda: not where.items("tasks"))
    return done


def swarm(starts: Starts, client: docker.DockerClient, given: Given) -> Done:
    name = f"peer-{secrets.token_hex(4)}"
    label = f"peer={name}"
    healthy = Healthy(client, label)
    update = ("--update-order", "start-first", "--update-parallelism", str(given.at_once), "--update-delay", "0s")
    check = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-interval", "1s")
    made = ("docker", "service", "create", "--quiet", "--replicas", str(TASKS), "--init", "--env", "V=1")
    ports = ("--publish", "mode=host,target=80", "--container-label", label)
    run(*made, *ports, *update, *check, "--name", name, IMAGE, "sh", "-c", SERVE)
    until("10 that are healthy", lambda: len(healthy.targets) == TASKS)
    old = names(client, label)
    command = ("docker", "service", "update", "--quiet", "--detach", "--env-add", "V=2", name)
    done = under_load(healthy, starts, old, lambda: run(*command), given.rate)
    run("docker", "service", "rm", name)
    until("removal", lambda: not client.api.containers(all=True, filters={"label": label}))
    healthy.close()
    return done


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def swarm_mode(client: docker.DockerClient) -> Iterator[None]:
    client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
    try:
        yield
    finally:
        client.swarm.leave(force=True)


@dataclass(frozen=True, slots=True)
class Given:
    turns: int
    rate: float
    at_once: int


def main(given: Given) -> None:
    image()
    client = docker.from_env()
    starts = Starts(client)
    with fresh("consul") as engine, bed(engine.url) as where, swarm_mode(client):
        http = f"http://{engine.address}"
        subjects: dict[str, Callable[[], Done]] = {
            f"Sked, shutdown_delay {DELAY}": lambda: sked(where, http, starts, client, given, DELAY),
            "Sked, no shutdown_delay": lambda: sked(where, http, starts, client, given, ""),
            "docker service update": lambda: swarm(starts, client, given),
        }
        found: dict[str, list[Done]] = {subject: [] for subject in subjects}
        for _ in range(given.turns):
            for subject, roll in subjects.items():
                found[subject].append(roll())
                starts.seen.clear()
    starts.close()
    peer = statistics.median(done.seconds for done in found["docker service update"])
    print(f"{TASKS} Docker tasks, {given.rate:g} requests per second, {given.at_once} at once, {given.turns} turns")
    print(f"{'':28}{'median s':>10}{'of Swarm':>10}{'requests':>10}{'failed':>8}")
    for subject, dones in found.items():
        seconds = statistics.median(done.seconds for done in dones)
        sent, failed = sum(done.sent for done in dones), sum(done.failed for done in dones)
        print(f"{subject:28}{seconds:10.1f}{seconds / peer:10.2f}{sent:10}{failed:8}")
        for done in dones:
            if done.failed:
                print(f"    {done.why}")
    ours = found[f"Sked, shutdown_delay {DELAY}"]
    failed, ratio = sum(done.failed for done in ours), statistics.median(done.seconds for done in ours) / peer
    print(f"failed with shutdown_delay: {failed} (goal: 0): {'reached' if not failed else 'missed'}")
    print(f"{ratio:.2f} times as long as Swarm (goal: at most 1): {'reached' if ratio <= 1 else 'missed'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("turns", nargs="?", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--at-once", type=int, default=1)
    chosen = parser.parse_args()
    main(Given(chosen.turns, chosen.rate, chosen.at_once))
