"""Rows about people: what operators write into the store by hand, and everything at once."""

from __future__ import annotations

import json
import os
import time

from campaign.judge import Terms
from campaign.mix import LOST_AFTER_SECONDS, Mix
from campaign.rows import row
from campaign.samples import issued
from campaign.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.model import codec, keys
from sked_core.model.types import Task

GARBAGE = (
    b"", b"null", b"[]", b"0", b'"x"', b'{"cluster": ', b'{} and more', b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
    b"\xff\xfe\xfa", b"[" * 100_000, b"9" * 5000, b'{"port": NaN}', b'{"service": "a", "service": "b"}', b"x" * 300_000,
)  # fmt: skip


@row("F27", "an operator writes garbage over records of tasks and of what is declared", store="etcd")
def garbage(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=4)
    stage.settle()
    before = stage.running()
    task = "default-web-1-1"
    stage.note("hand", task)
    with stage.store() as store:
        for key in (keys.host_task(stage.rig.host("a"), task), keys.task(task), keys.service("web")):
            kept = store.read(key).entries[key].value
            for nonsense in GARBAGE:
                store.commit([Put(key, nonsense)])
                time.sleep(0.25)
            stage.same(before, 1.0)
            store.commit([Put(key, kept)])
    stage.fault()
    stage.scale("web", 5)
    stage.settle()
    stage.same(before)


@row("F28", "an operator deletes one key of a host, then all of them")
def deleted(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=6)
    stage.settle()
    before = stage.running()
    task, host = "default-web-1-0", stage.rig.host("a")
    with stage.store() as store:
        stage.note("hand", task)
        store.commit([Delete(keys.host_task(host, task))])
        stage.fault()
        stage.until("it is another process", lambda sample: before[task] not in sample.instances)
        stage.settle()
        now = stage.running()
        assert {one: now[one] for one in before if one != task} == {one: before[one] for one in before if one != task}
        for one in now:
            stage.note("hand", one)
        prefix = keys.host_tasks(host)
        store.commit([Delete(key) for key in store.read(prefix).entries])
    stage.same(now, 5.0)
    stage.fault()
    stage.until("they were stopped in the end", lambda sample: not set(now.values()) & sample.instances, 120)
    stage.settle(120)


@row("F29", "an operator issues tasks by hand: a good one, and ones that can't be")
def by_hand(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=2)
    stage.settle()
    before = stage.running()
    host = stage.rig.host("a")
    key = keys.host_task(host, "default-web-1-0")
    with stage.store() as store:
        good = json.loads(store.read(key).entries[key].value)
        good |= {"service": "byhand"}
        good["task_definition"] |= {"name": "byhand"}
        unknown_type = json.loads(json.dumps(good)) | {"instance": 1}
        unknown_type["task_definition"]["containers"][0]["type"] = "teleport"
        unknown_field = json.loads(json.dumps(good)) | {"instance": 2}
        unknown_field["task_definition"]["containers"][0]["executor"]["privilege"] = True
        unknown_cluster = json.loads(json.dumps(good)) | {"instance": 3}
        unknown_cluster["cluster"]["name"] = "nowhere"
        tried = {}
        for record in (good, unknown_type, unknown_field, unknown_cluster):
            value = json.dumps(record).encode()
            task = codec.decode(value, Task)
            stage.note("hand", task.id)
            store.commit([Put(keys.host_task(host, task.id), value)])
            tried[record["instance"]] = task.id
        stage.fault()
        stage.until(
            "what can be done is", lambda sample: {tried[0], tried[3]} <= {one.task for one in sample.instances}
        )
        for number in (1, 2):
            place = (host, tried[number])
            stage.until(
                f"{place} is rejected with a reason",
                lambda sample, place=place: (
                    (found := issued(sample.store or {}).get(place))
                    and json.loads(found.value)["rejected"]
                    and json.loads(found.value)["reject_reason"]
                ),
            )
        stage.same(before)
        store.commit([Delete(keys.host_task(host, task)) for task in tried.values()])
    stage.settle()
    stage.same(before)


@row(
    "F50",
    "faults and changes at random, by seed",
    terms=Terms(most_lost=2, lost_after=LOST_AFTER_SECONDS),
    needs=("docker",),
)
def everything(stage: Stage) -> None:
    seed = int(os.environ.get("SKED_CAMPAIGN_SEED", "50"))
    print("seed", seed)
    mix = Mix(stage, seed, tasks=12, containers=2, pace=2.0)
    mix.begin()
    mix.run(float(os.environ.get("SKED_CAMPAIGN_SECONDS", "45")))
    mix.end()
