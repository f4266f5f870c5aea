"""ConsulHealth on a real agent: what Consul knows of a task, and what Sked reads back."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rigs.clients import within
from sked_consul.health import ConsulHealth
from sked_consul.registration import registration
from sked_consul.scripts import Script, ScriptChecks, run_script
from sked_consul.store import ConsulStore
from sked_core.model.types import Cluster, Container
from sked_core.plugin import Check, Health, HealthContext, InvalidValue, SystemClock, Task, TaskDefinition, TaskId
from sked_core.testing.builders import an_open_policy

Open = Callable[..., ConsulHealth]


@pytest.fixture
def open_health(consul: str) -> Iterator[Open]:
    """Opens providers; removes in the end what they registered."""
    opened: list[ConsulHealth] = []

    def open_one(host: str = "a", *, url: str = consul, store_uid: str = "") -> ConsulHealth:
        store = ConsulStore(url)
        opened.append(ConsulHealth(HealthContext(store, url, host, SystemClock(), store_uid, an_open_policy())))
        return opened[-1]

    yield open_one
    for provider in opened:
        if not provider._closed.is_set() and provider._client.http.address.port == int(consul.rpartition(":")[2]):
            for task_id in provider.registered():
                if task_id.startswith("t-"):
                    provider.deregister(task_id)
        provider.close()


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    """A small web server; set its ``healthy`` to change what it answers."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if server.healthy else 500)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(b"fine" if server.healthy else b"broken")  # type: ignore[attr-defined]

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal of the test run."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.healthy = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def make_task(*checks: Check, port: int = 0, service: str = "", tags: list[str] | None = None) -> Task:
    service = service or f"s{uuid.uuid4().hex[:10]}"
    container = Container(name="main", type="bash", checks=list(checks))
    definition = TaskDefinition(name=service, version=1, provide_port=True, tags=tags, containers=[container])
    cluster = Cluster(name="t", services=[service])
    return Task(cluster=cluster, task_definition=definition, service=service, port=port, host="a")


def ask(url: str, path: str) -> Any:
    with urllib.request.urlopen(url.replace("consul://", "http://") + path, timeout=60) as answer:
        return json.loads(answer.read())


def health_of(provider: ConsulHealth, task: Task) -> Health | None:
    return provider.health([("t", task.service)]).get(task.id)


def is_healthy(provider: ConsulHealth, task: Task) -> bool:
    health = health_of(provider, task)
    return health is not None and health.healthy


def test_what_a_task_with_secrets_answers_is_not_shown(
    consul: str, open_health: Open, web: ThreadingHTTPServer
) -> None:
    """Nobody who reads it from Consul could mask it. Of tasks without secrets it is shown."""
    provider, web.healthy = open_health(), False  # type: ignore[attr-defined]
    check = Check(http="http://127.0.0.1:$PROVIDED_PORT", interval="1s", script="", tcp="", ttl="")
    plain, holding = (make_task(check, port=web.server_address[1]) for _ in range(2))
    holding.task_definition.containers[0].executor["env"] = {"PW": {"secret": "shop/pw"}}
    for task in (plain, holding):
        provider.register(task)
    said = {
        task.id: lambda task=task: (
            ask(consul, "/v1/agent/checks").get(f"service:{task.id}", {}).get("Output", "").count("Output: broken")
        )
        for task in (plain, holding)
    }
    for look in said.values():
        within(60, look)
    within(60, lambda: "broken" in getattr(health_of(provider, plain), "output", ""))
    hidden = within(60, lambda: (h := health_of(provider, holding)) and "500" in h.output and h)
    assert "broken" not in hidden.output
    web.healthy = True  # type: ignore[attr-defined]
    passing = within(60, lambda: (h := health_of(provider, holding)) and h.healthy and h)
    assert "fine" not in passing.output


def test_an_http_check_passes_and_consul_lists_the_service(
    consul: str, open_health: Open, web: ThreadingHTTPServer
) -> None:
    provider = open_health()
    check = Check(http="http://127.0.0.1:$PROVIDED_PORT", interval="1s", script="", tcp="", ttl="")
    task = make_task(check, port=web.server_address[1], tags=["urlprefix-/x", "two"])
    assert health_of(provider, task) is None
    provider.register(task)
    assert health_of(provider, task) is not None
    within(60, lambda: is_healthy(provider, task))
    (found,) = ask(consul, f"/v1/health/service/t-{task.service}?passing")
    service = found["Service"]
    assert (service["ID"], service["Port"]) == (task.id, web.server_address[1])
    assert service["Tags"] == ["urlprefix-/x", "two"]
    web.healthy = False  # type: ignore[attr-defined]
    failing = within(60, lambda: (h := health_of(provider, task)) and not h.healthy and h)
    assert "500" in failing.output
    provider.deregister(task.id)
    within(60, lambda: health_of(provider, task) is None)
    provider.deregister(task.id)
    assert ask(consul, f"/v1/health/service/t-{task.service}") == []


def test_a_tcp_check(open_health: Open, web: ThreadingHTTPServer, free_port: Callable[[], int]) -> None:
    provider = open_health()
    there = make_task(Check(tcp="127.0.0.1:${PROVIDED_PORT}", interval="1s"), port=web.server_address[1])
    nowhere = make_task(Check(tcp="127.0.0.1:$PROVIDED_PORT", interval="1s"), port=free_port())
    provider.register(there)
    provider.register(nowhere)
    within(60, lambda: is_healthy(provider, there))
    within(60, lambda: "refused" in (health_of(provider, nowhere) or Health(True)).output)
    assert not is_healthy(provider, nowhere)


def test_a_task_without_checks_is_healthy_once_registered(open_health: Open) -> None:
    provider = open_health()
    for task in (make_task(), make_task(Check())):
        provider.register(task)
        within(60, lambda task=task: is_healthy(provider, task))


def test_a_script_check_runs_on_the_agent(consul: str, open_health: Open, tmp_path: Path) -> None:
    provider = open_health()
    flag = tmp_path / "up"
    script = f'echo "$SKED_TASK_ID:$PROVIDED_PORT:${{CONSUL_HTTP_TOKEN-none}}"; test -e {flag}'
    task = make_task(Check(script=script, interval="1s", timeout="2s"), port=4242)
    provider.register(task)
    failing = within(60, lambda: (h := health_of(provider, task)) and h.output.startswith("script: exit 1") and h)
    assert failing == Health(False, f"script: exit 1: {task.id}:4242:none")
    flag.touch()
    within(60, lambda: is_healthy(provider, task))
    assert health_of(provider, task) == Health(True, f"{task.id}:4242:none")
    flag.unlink()
    within(60, lambda: not is_healthy(provider, task))


def test_scripts_go_on_under_the_next_agent(open_health: Open, tmp_path: Path) -> None:
    first, log = open_health(), tmp_path / "log"
    task = make_task(Check(script=f"echo ran >> {log}", interval="1s"))
    first.register(task)
    within(60, lambda: is_healthy(first, task))
    first.close()
    log.unlink()
    second = open_health()
    assert task.id in second.registered()
    second.register(task)
    assert is_healthy(second, task), "an unchanged registration keeps its state"
    within(60, log.exists)
    second.deregister(task.id)
    log.unlink(missing_ok=True)
    within(60, lambda: not [thread for thread in threading.enumerate() if task.id in thread.name])


def test_all_of_several_checks_must_pass(open_health: Open, web: ThreadingHTTPServer, tmp_path: Path) -> None:
    provider = open_health()
    flag = tmp_path / "up"
    task = make_task(
        Check(id="same", name="same", http="http://127.0.0.1:$PROVIDED_PORT", interval="1s"),
        Check(id="same", name="same", tcp="127.0.0.1:$PROVIDED_PORT", interval="1s"),
        Check(id="same", name="same", script=f"test -e {flag}", interval="1s"),
        port=web.server_address[1],
    )
    provider.register(task)
    within(60, lambda: (health_of(provider, task) or Health(False)).output == "script: exit 1")
    assert not is_healthy(provider, task)
    flag.touch()
    within(60, lambda: is_healthy(provider, task))


def test_a_ttl_check_is_kept_by_the_task_itself(consul: str, open_health: Open) -> None:
    provider = open_health()
    task = make_task(Check(ttl="30s"))
    provider.register(task)
    assert health_of(provider, task) == Health(False, f"service:{task.id} has not run yet")
    address = consul.replace("consul://", "http://")
    request = urllib.request.Request(f"{address}/v1/agent/check/pass/service:{task.id}", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    within(60, lambda: is_healthy(provider, task))


def test_only_what_changed_is_registered_again(consul: str, open_health: Open, web: ThreadingHTTPServer) -> None:
    provider = open_health()
    check = Check(http="http://127.0.0.1:$PROVIDED_PORT", interval="1s")
    task = make_task(check, port=web.server_address[1])
    provider.register(task)
    within(60, lambda: is_healthy(provider, task))
    index = ask(consul, f"/v1/agent/service/{task.id}")["ContentHash"]
    for agent in (provider, open_health()):
        agent.register(task)
        assert is_healthy(agent, task)
    assert ask(consul, f"/v1/agent/service/{task.id}")["ContentHash"] == index
    changed = make_task(check, Check(ttl="1h"), port=task.port, service=task.service, tags=["new"])
    assert changed.id == task.id
    provider.register(changed)
    assert ask(consul, f"/v1/agent/service/{task.id}")["Tags"] == ["new"]
    own = [check for check in ask(consul, "/v1/agent/checks").values() if check["ServiceID"] == task.id]
    assert sorted(check["CheckID"] for check in own) == [f"service:{task.id}:1", f"service:{task.id}:2"]


def test_hosts_and_stores_that_share_an_agent_keep_apart(open_health: Open) -> None:
    a, b, other_store = open_health("a"), open_health("b"), open_health("a", store_uid="other")
    task = make_task()
    a.register(task)
    assert task.id in a.registered()
    for stranger in (b, other_store):
        assert task.id not in stranger.registered()
        stranger.deregister(task.id)
    assert is_healthy(b, task), "anybody reads anybody's health"
    b.register(task)
    a.deregister(task.id)
    assert task.id in b.registered()
    assert is_healthy(a, task)


def test_a_stranger_s_service_and_node_checks_don_t_count(consul: str, open_health: Open) -> None:
    provider = open_health()
    task = make_task()
    address = consul.replace("consul://", "http://")

    def put(path: str, value: Any = None) -> None:
        data = json.dumps(value).encode() if value else None
        urllib.request.urlopen(urllib.request.Request(address + path, data, method="PUT"), timeout=60).close()

    stranger, scanner = f"stranger-{uuid.uuid4().hex[:8]}", f"scan-{uuid.uuid4().hex[:8]}"
    put("/v1/agent/service/register", {"ID": stranger, "Name": f"t-{task.service}"})
    put("/v1/agent/check/register", {"ID": scanner, "Name": scanner, "TTL": "1h"})
    try:
        provider.register(task)
        within(60, lambda: is_healthy(provider, task))
        assert set(provider.health([("t", task.service)])) == {task.id}
        assert stranger not in provider.registered()
        provider.deregister(TaskId(stranger))
        assert stranger in ask(consul, "/v1/agent/services")
    finally:
        put(f"/v1/agent/service/deregister/{stranger}")
        put(f"/v1/agent/check/deregister/{scanner}")


def test_wait_wakes_for_health_and_for_tasks_without_checks(open_health: Open) -> None:
    provider, watcher = open_health(), open_health("")
    task = make_task(Check(script="true", interval="1s"))
    since = watcher.wait(0, 5)
    provider.register(task)
    deadline = time.monotonic() + 60
    while not is_healthy(watcher, task):
        since = watcher.wait(since, 10)
        assert time.monotonic() < deadline
    bare = make_task()
    provider.register(bare)
    deadline = time.monotonic() + 60
    while not is_healthy(watcher, bare):
        since = watcher.wait(since, 10)
        assert time.monotonic() < deadline


def test_an_agent_that_forgot_is_told_again(private_consul: Callable[..., Any], open_health: Open) -> None:
    server = private_consul()
    provider = open_health("a", url=server.url)
    task = make_task(Check(script="true", interval="1s"))
    provider.register(task)
    within(60, lambda: is_healthy(provider, task))
    since = provider.wait(0, 1)
    server.wipe()
    server.start()
    assert provider.wait(since, 60) != since
    within(60, lambda: task.id not in provider.registered())
    provider.register(task)
    within(60, lambda: is_healthy(provider, task))


def test_nothing_unsafe_becomes_a_path(open_health: Open) -> None:
    provider = open_health()
    for name in ("a/../b", "", "..", "a b"):
        with pytest.raises(InvalidValue):
            provider.deregister(TaskId(name))


def test_what_consul_is_told() -> None:
    task = make_task(Check(http="http://127.0.0.1:$PROVIDED_PORT/$HOME"), Check(script="x", interval=2_000_000_000))
    told = registration(task, "a", "uid")
    http, script = told.service["Checks"]
    assert http == {
        "CheckID": f"service:{task.id}:1",
        "Name": "main http",
        "HTTP": "http://127.0.0.1:0/$HOME",
        "Interval": "10000ms",
        "Timeout": "5000ms",
    }
    assert script == {"CheckID": f"service:{task.id}:2", "Name": "main script", "TTL": "41000ms"}
    assert told.service["Meta"]["sked"] == "a"
    assert told.service["Meta"]["sked-store"] == "uid"
    assert registration(make_task(Check(script="a"), service="s"), "a", "").meta != (
        registration(make_task(Check(script="b"), service="s"), "a", "").meta
    )
    with pytest.raises(InvalidValue, match="http and tcp"):
        registration(make_task(Check(http="http://x", tcp="x:1")), "a", "")
    with pytest.raises(InvalidValue, match="duration"):
        registration(make_task(Check(http="http://x", interval="soon")), "a", "")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo fine", Health(True, "fine")),
        ("echo bad >&2; exit 3", Health(False, "script: exit 3: bad")),
        ("kill -9 $$", Health(False, "script: exit -9")),
        ("sleep 60", Health(False, "script: no end within 0.5 s")),
        ("exec >&- 2>&-; sleep 60", Health(False, "script: no end within 0.5 s")),
        ("trap '' TERM; while :; do :; done", Health(False, "script: no end within 0.5 s")),
        ("sleep 60 & echo left", Health(True, "left")),
        ("yes | head -c 100000 | tr -d '\\n'", Health(True, "y" * 4096)),
        ("cat", Health(True, "")),
    ],
)
def test_a_script_ends_in_time_and_leaves_nothing(command: str, expected: Health) -> None:
    begun = time.monotonic()
    script = Script("c", command, (("SKED_TASK_ID", "x"),), interval=1, timeout=0.5)
    if expected.healthy:
        script = Script("c", command, (), interval=1, timeout=60)
    assert run_script(script, threading.Event(), an_open_policy()) == expected
    assert time.monotonic() - begun < 30


def test_what_a_script_says_is_masked_before_it_is_reported() -> None:
    told: list[tuple[str, Health]] = []
    reported = threading.Event()

    def report(check_id: str, health: Health) -> None:
        told.append((check_id, health))
        reported.set()

    masked = {"t-1": "hunter22"}
    scripts = ScriptChecks(report, an_open_policy(), lambda task, text: text.replace(masked[task], "***"))
    scripts.keep(TaskId("t-1"), [Script("c", "echo it is hunter22; exit 1", (), interval=60, timeout=30)])
    assert reported.wait(60)
    scripts.close()
    assert told == [("c", Health(False, "script: exit 1: it is ***"))]
