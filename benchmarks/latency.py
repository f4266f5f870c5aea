"""How long one task takes from submit to running, and from its death to its replacement running.

python benchmarks/latency.py [bash|docker] [TURNS]

Submit is the moment before ``apply`` is called; running is what the task itself, or Docker's engine, says. Peers:
``docker run -d`` for a start, a Swarm service for a replacement, both in turn with Sked in the same run.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time

import docker
from bed import IMAGE, Bed, Starts, bed, consul_url, image, until
from figures import Figure, verdict

KILLS = 9
STEADY_SECONDS = 5.5
"""A task that ran this long is restarted without back-off."""


def submit_bash(where: Bed) -> float:
    name = f"s-{secrets.token_hex(4)}"
    begun = where.apply(name, where.bash(), desired=1)
    ((_, ran),) = until("a start", lambda: where.began(f"c-{name}-{name}-1-0"))
    where.sked("scale", name, "0")
    return ran - begun


def submit_docker(where: Bed, starts: Starts) -> float:
    name = f"s-{secrets.token_hex(4)}"
    begun = where.apply(name, where.docker(), desired=1)
    (ran,) = until("a start", lambda: starts.times("start", "sked.task", f"c-{name}-{name}-1-0"))
    where.sked("scale", name, "0")
    return ran - begun


def docker_run(starts: Starts) -> float:
    name = f"peer-{secrets.token_hex(4)}"
    begun = time.time()
    run = ["docker", "run", "-d", "--net=none", "--label", f"peer={name}", IMAGE, "sleep", "100000"]
    ident = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    (ran,) = until("a start", lambda: starts.times("start", "peer", name))
    subprocess.run(["docker", "rm", "-f", ident], check=True, capture_output=True)
    return ran - begun


def replaced_bash(where: Bed) -> list[float]:
    where.apply("r", where.bash(), desired=KILLS)
    until("all starts", lambda: len(where.began("c-r-*")) == KILLS)
    time.sleep(STEADY_SECONDS)
    took = []
    for pid, _ in where.began("c-r-*"):
        before = len(where.began("c-r-*"))
        begun = time.time()
        os.kill(pid, signal.SIGKILL)
        until("a restart", lambda before=before: len(where.began("c-r-*")) > before)
        took.append(max(ran for _, ran in where.began("c-r-*")) - begun)
    where.empty()
    return took


def replaced_docker(label: tuple[str, str], starts: Starts) -> list[float]:
    """Kill the first process of each container with this label, once each."""
    until("all starts", lambda: len(starts.times("start", *label)) >= KILLS)
    time.sleep(STEADY_SECONDS)
    client = docker.from_env()
    took = []
    for container in client.containers.list(filters={"label": "=".join(label)}):
        before = len(starts.times("start", *label))
        begun = time.time()
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
        until("a restart", lambda before=before: len(starts.times("start", *label)) > before)
        took.append(max(starts.times("start", *label)) - begun)
    return took


def report(figure: Figure, goal: float) -> None:
    word = "reached" if figure.median <= goal else "missed"
    print(f"{figure} (goal: {goal * 1000:.0f} ms): {word}")


def bash(turns: int) -> None:
    for place, consul in (("embedded", ""), ("Consul", consul_url())):
        with bed(consul) as where:
            submit_bash(where)
            report(Figure(f"bash, submit to running, {place}", [submit_bash(where) for _ in range(turns)]), 0.100)
            report(Figure(f"bash, killed to running again, {place}", replaced_bash(where)), 0.200)


def in_docker(turns: int) -> None:
    image()
    client = docker.from_env()
    starts = Starts(client)
    docker_run(starts)
    for place, consul in (("embedded", ""), ("Consul", consul_url())):
        with bed(consul) as where:
            submit_docker(where, starts)
            ours, peers = [], []
            for _ in range(turns):
                peers.append(docker_run(starts))
                ours.append(submit_docker(where, starts))
                until("an empty host", lambda: not where.items("tasks"))
            subject, peer = Figure(f"Docker, submit to running, {place}", ours), Figure("docker run -d", peers)
            print(subject, "|", peer)
            report(subject, peer.median + 0.050)
            where.empty()
            starts.seen.clear()
            where.apply("r", where.docker(), desired=KILLS)
            label = ("sked.host", where.host)
            killed = Figure(f"Docker, killed to running again, {place}", replaced_docker(label, starts))
            report(killed, 0.420)
    swarm = Figure("Swarm, killed to running again", swarm_replaced(client, starts))
    print(swarm)
    print(verdict(killed, swarm, at_most=1.0))
    starts.close()


def swarm_replaced(client: docker.DockerClient, starts: Starts) -> list[float]:
    client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
    try:
        name = f"peer-{secrets.token_hex(4)}"
        made = ["docker", "service", "create", "--detach", "--replicas", str(KILLS), "--restart-delay", "0s"]
        subprocess.run(
            [*made, "--name", name, "--container-label", f"peer={name}", IMAGE, "sleep", "100000"],
            check=True,
            capture_output=True,
        )
        took = replaced_docker(("peer", name), starts)
        subprocess.run(["docker", "service", "rm", name], check=True, capture_output=True)
        return took
    finally:
        client.swarm.leave(force=True)


if __name__ == "__main__":
    kind = sys.argv[1] if len(sys.argv) > 1 else "all"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    if kind in ("bash", "all"):
        bash(count)
    if kind in ("docker", "all"):
        in_docker(count)
