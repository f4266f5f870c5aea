"""Many tasks on one host: from apply to the last one running.

python benchmarks/bulk.py [bash|docker] [TURNS]

Docker: 50 containers on the default bridge, as Swarm puts them, beside the engine's API called with as many threads as
an agent uses, and beside ``docker service create --replicas 50`` in Swarm mode, all in turn in one run. What is timed
starts with the command and ends with the engine's start event of the last container. Bash: 100 tasks, from
``sked apply`` to the time that the last of them notes.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import docker
from bed import IMAGE, Bed, Starts, bed, consul_url, image, until
from figures import Figure, verdict

from sked_core.runtime.workers import POOL_THREADS

CONTAINERS = 50
PROCESSES = 100


def sked_docker(where: Bed, starts: Starts) -> float:
    starts.seen.clear()
    begun = where.apply("bulk", where.docker(network="bridge"), desired=CONTAINERS)
    until("all starts", lambda: len(starts.times("start", "sked.host", where.host)) == CONTAINERS)
    took = max(starts.times("start", "sked.host", where.host)) - begun
    where.empty()
    return took


def engine_api(client: docker.DockerClient, starts: Starts) -> float:
    """The least that anybody has to do: create and start, with the same settings as the executor's."""
    mark = secrets.token_hex(4)
    same = {
        "init": True,
        "pids_limit": 4096,
        "cap_drop": ["NET_RAW"],
        "security_opt": ["no-new-privileges"],
        "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }

    def one(number: int) -> str:
        api = client.api
        config = api.create_host_config(**same)
        made = api.create_container(
            IMAGE, ["sleep", "100000"], name=f"{mark}-{number}", labels={"peer": mark}, host_config=config
        )
        api.start(made["Id"])
        return str(made["Id"])

    begun = time.time()
    with ThreadPoolExecutor(POOL_THREADS) as pool:
        idents = list(pool.map(one, range(CONTAINERS)))
    until("all starts", lambda: len(starts.times("start", "peer", mark)) == CONTAINERS)
    took = max(starts.times("start", "peer", mark)) - begun
    subprocess.run(["docker", "rm", "-f", *idents], check=True, capture_output=True)
    return took


def swarm(starts: Starts) -> float:
    mark = secrets.token_hex(4)
    begun = time.time()
    made = [
        "docker",
        "service",
        "create",
        "--detach",
        "--replicas",
        str(CONTAINERS),
        "--container-label",
        f"peer={mark}",
    ]
    subprocess.run([*made, "--name", mark, IMAGE, "sleep", "100000"], check=True, capture_output=True)
    until("all starts", lambda: len(starts.times("start", "peer", mark)) >= CONTAINERS)
    took = sorted(starts.times("start", "peer", mark))[CONTAINERS - 1] - begun
    subprocess.run(["docker", "service", "rm", mark], check=True, capture_output=True)
    listed = ["docker", "ps", "-aq", "--filter", f"label=peer={mark}"]
    until("removal", lambda: not subprocess.run(listed, capture_output=True, check=True).stdout.strip())
    return took


def in_docker(turns: int) -> None:
    image()
    client = docker.from_env()
    starts = Starts(client)
    client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
    try:
        with bed() as where:
            samples: dict[str, list[float]] = {"sked": [], "engine API": [], "Swarm": []}
            sked_docker(where, starts)
            for _ in range(turns):
                samples["sked"].append(sked_docker(where, starts))
                samples["engine API"].append(engine_api(client, starts))
                samples["Swarm"].append(swarm(starts))
    finally:
        client.swarm.leave(force=True)
        starts.close()
    figures = {name: Figure(f"{CONTAINERS} containers, {name}", taken) for name, taken in samples.items()}
    for figure in figures.values():
        print(figure)
    print(verdict(figures["sked"], figures["engine API"], at_most=1.15))
    print(verdict(figures["sked"], figures["Swarm"], at_most=1.0))


def sked_bash(where: Bed) -> float:
    begun = where.apply("bulk", where.bash(), desired=PROCESSES)
    until("all starts", lambda: len(where.began()) == PROCESSES)
    took = max(at for _, at in where.began()) - begun
    where.empty()
    return took


def bash(turns: int) -> None:
    for place, consul in (("embedded", ""), ("Consul", consul_url())):
        with bed(consul) as where:
            sked_bash(where)
            figure = Figure(f"{PROCESSES} bash tasks, {place}", [sked_bash(where) for _ in range(turns)])
        rate = PROCESSES / figure.median
        print(f"{figure}: {rate:.0f} per second (goal: at least 100): {'reached' if rate >= 100 else 'missed'}")


if __name__ == "__main__":
    kind = sys.argv[1] if len(sys.argv) > 1 else "all"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if kind in ("bash", "all"):
        bash(count)
    if kind in ("docker", "all"):
        in_docker(count)
