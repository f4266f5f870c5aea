"""Rows about networks: hosts and stores in namespaces of their own, with packets that are dropped silently."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from campaign.judge import Terms
from campaign.rows import row
from campaign.samples import task_of
from campaign.stage import SHORT_LOST_AFTER, Stage
from rigs.clusters import KINDS
from rigs.consul import ConsulAgent
from rigs.local import ask, free_ports
from rigs.needs import missing, services_env
from rigs.network import Namespaces, Place, why_no_namespaces
from sked_core.model import keys

LOST = Terms(lost_after=6, most_lost=2)


def _namespaces() -> None:
    reason = why_no_namespaces()
    if reason:
        missing("namespaces", reason)


def consul_at(place: Place, folder: Path, **more: object) -> ConsulAgent:
    """A Consul server that all places reach."""
    server, serf = free_ports(2)
    config = {
        "server": True, "bootstrap_expect": 1, "node_name": "server", "bind_addr": place.address,
        "client_addr": f"{place.address} {place.loopback}",
        "ports": {"http": 8500, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}, **more,
    }  # fmt: skip
    return ConsulAgent(
        services_env()["CONSUL_BIN"], folder, config, address=f"{place.address}:8500", within=place.within
    )


@contextlib.contextmanager
def apart(outer: Stage, terms: Terms, hosts: int = 2) -> Iterator[tuple[Stage, Namespaces]]:
    """A store in the first of some namespaces; the others are for hosts. What is found counts as the outer stage's."""
    _namespaces()
    network = Namespaces(f"c{os.getpid()}{secrets.token_hex(1)}", 1 + hosts)
    try:
        network.build()
        server = consul_at(network.places[0], outer.folder / "apart")
        try:
            server.start()
            with Stage(server, outer.folder, terms) as stage:
                yield stage, network
                outer.violations.extend(stage.violations)
                outer.recovery = max(outer.recovery, stage.recovery)
        finally:
            server.kill()
    finally:
        network.remove()


def issued_to(host: str):
    """A condition: all tasks are issued to this host."""

    def holds(sample):
        found = [task_of(one.value) for key, one in (sample.store or {}).items() if key.startswith(keys.TASKS)]
        return found and all(task and task.host == host for task in found)

    return holds


@row("F12", "of three servers the leader is killed, then the quorum is lost", terms=Terms())
def quorum_lost(outer: Stage) -> None:
    name = f"t{os.getpid()}c{secrets.token_hex(1)}"
    cluster = KINDS["consul"](name, outer.folder, services_env()["CONSUL_BIN"])
    try:
        cluster.up()
        cluster_server = type("Whole", (), {"url": cluster.url, "http": ""})()
        with Stage(cluster_server, outer.folder, Terms()) as stage:
            for host in "ab":
                place = cluster.hosts["ab".index(host)]
                stage.agent(host, backend=place.url, within=place.place.within)
            stage.scheduler()
            stage.hosts("a", "b")
            stage.run_service(desired=4)
            stage.settle()
            before = stage.running()
            leader = cluster.leader()
            leader.kill()
            stage.fault()
            stage.until("it scales", lambda _: _scaled(stage, 5))
            stage.settle()
            stage.same(before)
            leader.start(60)
            before = stage.running()
            followers = cluster.followers()
            with stage.outage():
                cluster.leader().kill()
                followers[0].kill()
                stage.same(before, 33.0)
                stage.rig.sked("scale", "web", "9", code=6)
                cluster.mend()
            stage.fault()
            stage.until("it scales again", lambda _: _scaled(stage, 6))
            stage.settle()
            stage.same(before)
            assert not stage.rig.events("host.lost")
            outer.violations.extend(stage.violations)
            outer.recovery = stage.recovery
    finally:
        cluster.down()


def _scaled(stage: Stage, count: int) -> bool:
    with contextlib.suppress(AssertionError):
        stage.scale("web", count)
        return True
    return False


@row("F21", "a host is cut off from the store, its packets dropped, until it is lost; then the network heals")
def cut_off(outer: Stage) -> None:
    with apart(outer, LOST) as (stage, network):
        for number, host in enumerate("ab", 1):
            stage.agent(host, within=network.places[number].within)
        stage.scheduler("scheduler", "--lost-after", SHORT_LOST_AFTER)
        stage.hosts("a", "b")
        stage.run_service(desired=6)
        stage.settle()
        mine, others = stage.running("a"), stage.running("b")
        stage.note("cut", stage.rig.host("a"))
        network.cut(network.places[1])
        stage.until("all is issued to the other host", issued_to(stage.rig.host("b")))
        stage.until(
            "all runs there",
            lambda sample: len({one.task for one in sample.instances if one.host == stage.rig.host("b")}) == 6,
        )
        now = stage.monitor.look_again().instances
        assert set(mine.values()) <= now, "who can't be told to stop a task runs it on"
        network.heal(network.places[1])
        stage.note("heal", stage.rig.host("a"))
        stage.fault()
        stage.settle()
        stage.same(others)


@row("F22", "a host's way to the store is cut in one direction, then comes and goes")
def flapping(outer: Stage) -> None:
    with apart(outer, Terms(lost_after=20, most_lost=2)) as (stage, network):
        place = network.places[1]
        for number, host in enumerate("ab", 1):
            stage.agent(host, within=network.places[number].within)
        stage.scheduler("scheduler", "--lost-after", "20s")
        stage.hosts("a", "b")
        stage.run_service(desired=4)
        stage.settle()
        before = stage.running()
        for chain in ("INPUT ! -i lo", "OUTPUT ! -o lo"):
            stage.note("cut", stage.rig.host("a"))
            _rule(place, f"-A {chain} -j DROP")
            stage.same(before, 8.0)
            network.heal(place)
            stage.note("heal", stage.rig.host("a"))
            stage.same(before, 3.0)
        for _ in range(3):
            stage.note("cut", stage.rig.host("a"))
            network.cut(place)
            time.sleep(5)
            network.heal(place)
            stage.note("heal", stage.rig.host("a"))
            time.sleep(5)
        stage.fault()
        stage.settle()
        moves = Counter(event["subject"] for event in stage.rig.events("task.issued"))
        assert max(moves.values()) <= 2, f"a task is issued once, and moved once at most: {moves}"


def _rule(place: Place, rule: str) -> None:
    subprocess.run([*place.within, "iptables", "-w", *rule.split()], check=True, timeout=30)


@row("F23", "all hosts are cut off from the store at once")
def all_cut_off(outer: Stage) -> None:
    with apart(outer, Terms(lost_after=12, most_lost=2), hosts=1) as (stage, network):
        for host in "abcd":
            stage.agent(host, within=network.places[1].within)
        stage.scheduler("scheduler", "--lost-after", "12s")
        stage.hosts(*"abcd")
        stage.run_service(desired=6)
        stage.settle()
        before = stage.running()
        for host in "abcd":
            stage.note("cut", stage.rig.host(host))
        network.cut(network.places[1])
        stage.until("none is alive", lambda one: one.store and not any(key.startswith(keys.LIVE) for key in one.store))
        stage.same(before, 15.0)
        network.heal(network.places[1])
        for host in "abcd":
            stage.note("heal", stage.rig.host(host))
        stage.fault()
        stage.hosts(*"abcd")
        stage.settle()
        stage.same(before)


@row("F26", "the Consul client beside a host hangs, and its node counts as failed")
def node_fails(outer: Stage) -> None:
    with apart(outer, Terms()) as (stage, network):
        place = network.places[1]
        settings = json.loads((stage.server.folder / "config.json").read_text())
        config = {
            "server": False, "node_name": "client", "bind_addr": place.address, "client_addr": "127.0.0.1",
            "retry_join": [f"{network.places[0].address}:{settings['ports']['serf_lan']}"], "retry_interval": "1s",
            "ports": settings["ports"],
        }  # fmt: skip
        client = ConsulAgent(
            services_env()["CONSUL_BIN"], outer.folder / "client", config, address="127.0.0.1:8500", within=place.within
        )
        try:
            client.launch()
            http = stage.server.http
            stage.until("it has joined", lambda _: b"passing" in (ask(f"{http}/v1/health/node/client") or b""), 60)
            stage.agent("a", backend="consul://127.0.0.1:8500", within=place.within)
            stage.agent("b", within=network.places[2].within)
            stage.scheduler()
            stage.hosts("a", "b")
            stage.run_service(desired=4)
            stage.settle()
            before = stage.running()
            held = {one["ID"] for one in json.loads(ask(f"{http}/v1/session/list") or b"[]")}
            stage.note("cut", stage.rig.host("a"))
            client.pause()
            stage.until(
                "it counts as failed", lambda _: b"critical" in (ask(f"{http}/v1/health/node/client") or b""), 60
            )
            now = {one["ID"] for one in json.loads(ask(f"{http}/v1/session/list") or b"[]")}
            assert held <= now, "no session goes with the health of a node"
            client.resume()
            stage.note("heal", stage.rig.host("a"))
            stage.fault()
            stage.until("it is back", lambda _: b"critical" not in (ask(f"{http}/v1/health/node/client") or b""), 60)
            stage.same(before)
            stage.scale("web", 5)
            stage.settle()
            stage.same(before)
        finally:
            client.kill()
