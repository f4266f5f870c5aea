"""Signed tasks with real processes: what schedulers issue runs, what a thief writes does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.builders import a_container, a_definition, a_task

pytest.importorskip("cryptography")


def test_a_host_that_asks_for_signatures_runs_what_is_signed_and_nothing_else(rig, manifest, tmp_path: Path) -> None:
    key, trusted, policy = tmp_path / "signing.pem", tmp_path / "trusted", tmp_path / "policy.yml"
    public = rig.sked("signing", "new-key", str(key)).strip()
    assert rig.sked("signing", "public-key", str(key)).strip() == public
    trusted.write_text(f"{public}\n")
    asked = {"required": True, "keys": [str(trusted)]}
    policy.write_text(json.dumps({"executors": ["bash"], "bash": {"root": True}, "signing": asked}))
    rig.run("agent", "--policy", str(policy), host="a")
    rig.run("scheduler", "--signing-key", str(key))
    rig.hosts_ready(1)
    rig.apply(manifest(desired=1))
    (own,) = rig.until("what is signed is well", rig.healthy(1))
    assert own["signature"]["at"]

    store = open_store(rig.backend, Plugins.load())
    evil, mark = tmp_path / "evil", tmp_path / "by-hand"
    start = {"start": f"touch {evil}; exec sleep 600"}
    host = rig.host("a")
    forged = a_task(host, 0, a_definition("evil", containers=[a_container(executor=start)]), service="evil")
    moved = json.loads(encode(forged)) | {"signature": own["signature"]}
    for record in (encode(forged), encode(moved)):
        store.commit([Put(keys.host_task(host, forged.id), record)])
        rig.until("rejected", lambda: "policy signing: " in rig.sked("state", "get", keys.host_task(host, forged.id)))
    assert not evil.exists()

    by_hand = a_definition("hand", containers=[a_container(executor={"start": f"touch {mark}; exec sleep 600"})])
    record = encode(a_task("", 0, by_hand, service="hand")).decode()
    signed = rig.sked("signing", "sign", "--key", str(key), "--host", host, "-", stdin=record)
    store.commit([Put(keys.host_task(host, "default-hand-1-0"), signed.encode())])
    rig.until("it runs", mark.exists)
    store.close()
    rig.until("both are well", lambda: sum(one["healthy"] for one in rig.items()) == 2)
    assert not evil.exists()
    rig.sked("stop", "default-hand-1-0", "-y")
    rig.sked("scale", "web", "0")
    rig.until("all is gone", lambda: [one["id"] for one in rig.items() if one["id"] != forged.id] == [])


def test_an_agent_whose_keys_can_not_be_read_does_not_start(rig, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yml"
    asked = {"required": True, "keys": [str(tmp_path / "nothing")]}
    policy.write_text(json.dumps({"executors": ["bash"], "signing": asked}))
    agent = rig.run("agent", "--policy", str(policy), host="a")
    assert agent.wait() == 3
    assert "nothing" in agent.text()
