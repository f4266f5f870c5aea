"""What processes show to Prometheus: real ones, scraped and parsed, and compared with the page that lists it."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rigs.sked import Rig, service
from sked_core.errors import Conflict
from sked_core.interfaces.store import Check, Entry, Put, Revision, Snapshot
from sked_core.logic.presence import Rejections
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.metrics import Metrics, catalog
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.pulse import Pulse, hung
from sked_core.runtime.scheduling import figures
from sked_core.runtime.scheduling import loop as scheduler_loop
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_cluster, a_definition, a_task
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import FakeHealth, RecordingStore
from sked_web.watched import CATALOG

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def rig(tmp_path: Path):
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


def url_of(rig: Rig, proc) -> str:
    said = rig.until("where it serves", lambda: re.search(r"serving on (http\S+)", proc.text()))
    return said[1]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum of the series of ``name`` that have these labels."""
    return sum(v for (n, own), v in found.items() if n == name and labels.items() <= dict(own).items())


def test_the_page_lists_exactly_what_processes_show() -> None:
    rows = [
        re.split(r" \| ", line.strip("| ")) for line in PAGE.read_text().splitlines() if line.startswith("| `sked_")
    ]
    documented = {row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])), row[-1]) for row in rows}
    assert documented == catalog() | CATALOG


def test_names_and_labels_keep_to_the_conventions_of_prometheus() -> None:
    for name, (kind, labels, text) in (catalog() | CATALOG).items():
        assert re.fullmatch(r"sked_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_duration_seconds"), name
        assert not {"task", "task_id", "host", "id"} & set(labels), f"{name}: no bound to its series"
        assert text.endswith(".")


def test_a_process_that_runs_both_shows_what_it_does(rig: Rig) -> None:
    proc = rig.run("combined", "--listen", "127.0.0.1:0", host="h")
    url = url_of(rig, proc)
    rig.hosts_ready(1)
    rig.apply(service("well", desired=2))
    rig.apply(service("ill", desired=1, start="exit 3", cluster={"name": "second"}))
    rig.apply(service("big", desired=1, memory=10**9, cluster={"name": "third"}))

    def found() -> Samples:
        return samples(get(f"{url}/metrics"))

    rig.until("two that run", lambda: value(found(), "sked_agent_tasks", service="well", health="healthy") == 2)
    rig.until("a failure", lambda: value(found(), "sked_agent_task_restarts_total", service="ill") >= 1)
    rig.until("one that waits", lambda: value(found(), "sked_scheduler_waiting_tasks", service="big") == 1)
    rig.sked("scale", "well", "1")
    rig.until("a stop", lambda: value(found(), "sked_agent_task_stops_total", service="well") == 1)
    rig.until("its end", lambda: value(found(), "sked_scheduler_issued_tasks", service="well") == 1)
    last = found()

    assert value(last, "sked_agent_task_starts_total", service="well") == 2
    assert value(last, "sked_agent_task_failures_total", service="ill", cause="crashed") >= 1
    assert value(last, "sked_agent_task_failures_total", service="well") == 0
    assert value(last, "sked_scheduler_placements_total", service="well") == 2
    assert value(last, "sked_scheduler_withdrawals_total", service="well") == 1
    assert value(last, "sked_scheduler_desired_tasks", service="well") == 1
    assert value(last, "sked_scheduler_blocked", service="well") == 0
    assert value(last, "sked_scheduler_services") == 3
    assert value(last, "sked_scheduler_hosts", state="ready") == 1
    assert value(last, "sked_scheduler_processes") == 1
    assert value(last, "sked_agent_executor_up", executor="bash") == 1
    assert value(last, "sked_agent_step_duration_seconds_count", executor="bash", step="start") >= 4
    assert value(last, "sked_store_call_duration_seconds_count", operation="commit") > 5
    assert value(last, "sked_scheduler_evaluation_duration_seconds_count") >= 3
    assert value(last, "sked_events_total", event="task.started") >= 4
    assert value(last, "sked_lease_age_seconds") < 60
    assert 0 <= value(last, "sked_agent_store_look_age_seconds") < 120
    assert value(last, "sked_build_info", roles="agent,scheduler") == 1
    assert value(last, "process_resident_memory_bytes") > 1e6

    shown = {family.name + "_total" * (family.type == "counter"): family.type
             for family in text_string_to_metric_families(get(f"{url}/metrics"))}  # fmt: skip
    ours = {name: kind for name, kind in shown.items() if name.startswith("sked_")}
    # Rejected tasks are those of services that are told one by one; only that no task was rejected is missing here.
    assert catalog().keys() - ours.keys() <= {"sked_agent_task_rejections_total"}
    assert ours == {name: kind for name, (kind, _, _) in catalog().items() if name in ours}
    assert not [labels for (name, labels) in last if name.startswith("sked_") and "default-well" in str(labels)]
    assert get(f"{url}/healthz") == "ok\n"
    assert proc.terminate() == 0


def test_a_scheduler_alone_shows_nothing_of_agents_and_takes_turns_with_no_one(rig: Rig) -> None:
    proc = rig.run("scheduler", "--listen", "127.0.0.1:0")
    url = url_of(rig, proc)
    rig.until("a round", lambda: value(samples(get(f"{url}/metrics")), "sked_scheduler_processes") == 1)
    families = {family.name for family in text_string_to_metric_families(get(f"{url}/metrics"))}
    assert not [name for name in families if name.startswith("sked_agent")]
    for path, code in (("/", 404), ("/metrics/", 404), ("/v1/tasks", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(url + path)
        assert refused.value.code == code
    assert proc.terminate() == 0


def test_the_format_is_the_one_that_was_asked_for(rig: Rig) -> None:
    url = url_of(rig, rig.run("scheduler", "--listen", "127.0.0.1:0"))
    request = urllib.request.Request(
        f"{url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.read().endswith(b"# EOF\n")
    packed = urllib.request.Request(f"{url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(packed, timeout=30) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert b"sked_scheduler_failing_rounds 0" in gzip.decompress(answer.read())


def test_other_machines_need_a_token_and_tls_or_it_does_not_start(rig: Rig) -> None:
    ran = rig.sked("scheduler", "--listen", "0.0.0.0:0", code=2, errors=True)
    assert "won't listen on 0.0.0.0:0" in ran and "--tokens FILE" in ran and "--tls-cert FILE" in ran


def test_figures_need_a_token_where_there_are_any_and_health_does_not(rig: Rig) -> None:
    tokens = rig.folder / "tokens"
    tokens.write_text(f"prometheus read {'r' * 40}\n")
    tokens.chmod(0o600)
    url = url_of(rig, rig.run("scheduler", "--listen", "127.0.0.1:0", "--tokens", str(tokens)))
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{url}/metrics")
    assert refused.value.code == 401
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {'r' * 40}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert b"sked_build_info" in answer.read()
    assert get(f"{url}/healthz") == "ok\n"


def test_a_process_that_listens_nowhere_does_not_even_load_what_would_count(tmp_path) -> None:
    code = (
        "import sys; from sked_core.surface import cli, processes\n"
        "processes.run_until_signal = lambda loops, **more: print([m for m in sys.modules\n"
        "    if m.startswith('prometheus') or 'starlette' in m or 'uvicorn' in m]) or 0\n"
        f"sys.exit(cli.run(['combined', '--host', 'h', '--backend', 'sqlite://{tmp_path}/s.db',\n"
        f"    '--state-dir', '{tmp_path}/a']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


# --- parts -------------------------------------------------------------------------------------------------------


def read(metrics: Metrics) -> Samples:
    return samples(metrics.text()[0].decode())


def test_calls_of_a_store_that_fails_are_counted_by_what_they_raised() -> None:
    metrics, inner = Metrics(["scheduler"]), RecordingStore(MemoryStore().client())
    store = metrics.store(inner)
    store.commit([Put("config/a", b"1")])
    with pytest.raises(Conflict):
        store.commit([Check("config/a", Revision(0)), Put("config/a", b"2")])
    answered = value(read(metrics), "sked_store_answered_timestamp_seconds")
    found = read(metrics)
    assert value(found, "sked_store_call_duration_seconds_count", operation="commit") == 2
    assert value(found, "sked_store_errors_total", operation="commit", error="Conflict") == 1
    assert answered > 0
    assert store.read("config/").entries["config/a"].value == b"1"
    assert store.max_ops == inner.max_ops


def test_a_lease_that_is_lost_is_counted_once() -> None:
    clock, metrics = FakeClock(), Metrics(["agent"])
    memory = MemoryStore()
    keeper = LeaseKeeper(memory.client(), clock)
    metrics.keeper(keeper)
    assert ("sked_lease_age_seconds", frozenset()) not in read(metrics)
    keeper.lease()
    clock.advance(4.0)
    assert value(read(metrics), "sked_lease_age_seconds") == 4.0
    keeper.drop()
    keeper.drop()
    assert value(read(metrics), "sked_lease_losses_total") == 1


def test_a_loop_that_hangs_is_late_and_one_that_rests_is_not() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    pulse.begin()
    clock.advance(2.0)
    pulse.rest(10.0)
    assert (pulse.rounds, pulse.busy, pulse.late()) == (1, 2.0, 0.0)
    clock.advance(9.0)
    assert pulse.late() == 0.0
    clock.advance(4.0)
    assert pulse.late() == 3.0
    pulse.begin()
    clock.advance(50.0)
    pulse.go_on()
    clock.advance(50.0)
    assert hung({"one": pulse}, 60.0) == [], "it lasts, and comes further"
    clock.advance(20.0)
    assert hung({"one": pulse, "other": Pulse(clock)}, 60.0) == ["one"]
    pulse.rest(0.0)
    assert pulse.busy == 2.0 + 120.0


def test_a_scheduler_that_gets_answers_from_a_slow_store_does_not_hang() -> None:
    clock = FakeClock()
    memory = MemoryStore()
    memory.commit([Put(keys.STORE_UID, b"this-store")])

    class Slow(RecordingStore):
        def read(self, prefix: str) -> Snapshot:
            clock.advance(40.0)
            return super().read(prefix)

    loop = scheduler_loop.SchedulerLoop(
        store=Slow(memory.client()), plugins=Plugins([]), health=FakeHealth(), name="s", clock=clock
    )
    loop._pulse.begin()
    loop.step()
    assert clock.monotonic() >= 80.0, "several reads"
    assert loop.pulses()["scheduler"].late() < 40.0


def test_services_beyond_a_thousand_are_summed_up() -> None:
    view = View(lambda _: (), Rejections())
    tasks = {}
    for number in range(figures.MAX_SERVICES + 5):
        task = a_task("h", 0, a_definition(), service=f"s{number:05}", cluster=a_cluster(services=(f"s{number:05}",)))
        tasks[keys.task(task.id)] = Entry(encode(task), Revision(1))
    view.take_tasks(tasks)
    found = figures.services(view)
    assert len(found) == figures.MAX_SERVICES + 1
    assert found[figures.OTHERS] == (0, 5, 0, 0, 0)
    assert sum(row[1] for row in found.values()) == len(tasks)


def test_a_scheduler_that_is_busy_holds_up_nobody_who_asks_for_figures(monkeypatch) -> None:
    monkeypatch.setattr(scheduler_loop, "FIGURES_SECONDS", 0.05)
    loop = scheduler_loop.SchedulerLoop(
        store=MemoryStore().client(), plugins=Plugins([]), health=FakeHealth(), name="s", clock=FakeClock()
    )
    metrics = Metrics(["scheduler"])
    metrics.sample(loop.figures)
    with loop._monitor:
        assert value(read(metrics), "sked_build_info") == 1
        assert loop.figures() is None
    assert value(read(metrics), "sked_scheduler_services") == 0
    assert ("sked_scheduler_services", frozenset()) in read(metrics)
