"""Which tasks are targets, what Prometheus is told of them, and where."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.request

import pytest

from sked_core.plugin import Cluster, Health, Host, InvalidValue, SeenHost, SeenTask, Task, TaskDefinition
from sked_core.testing.commands import run_command
from sked_prometheus import plugin
from sked_prometheus.command import put
from sked_prometheus.serving import Server
from sked_prometheus.targets import groups, written


def a_task(*tags: str, healthy: bool | None = True, **fields: object) -> SeenTask:
    definition = TaskDefinition(name="web", version=3, tags=list(tags))
    cluster = Cluster(name="shop", datacenter="fra")
    task = Task(
        **{"cluster": cluster, "task_definition": definition, "service": "web", "host": "h1", "port": 80} | fields
    )
    return SeenTask(task, None if healthy is None else Health(healthy))


H1 = SeenHost(Host(name="h1", address="10.0.0.1", tags={"zone": "a", "rack/row": "7"}))


def test_a_target_has_its_address_and_labels():
    assert groups([a_task("urlprefix-/web", "prometheus:/stats?x=1")], [H1]) == [
        {
            "targets": ["10.0.0.1:80"],
            "labels": {
                "cluster": "shop",
                "service": "web",
                "task": "shop-web-3-0",
                "host": "h1",
                "version": "3",
                "__meta_sked_datacenter": "fra",
                "__meta_sked_tags": ",urlprefix-/web,prometheus:/stats?x=1,",
                "__meta_sked_host_tag_zone": "a",
                "__meta_sked_host_tag_rack_row": "7",
                "__metrics_path__": "/stats?x=1",
            },
        }
    ]


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (a_task("prometheus"), True),
        (a_task("other", "prometheus"), True),
        (a_task(), False),
        (a_task("prometheus2"), False),
        (a_task("prometheus:nowhere"), False),
        (a_task("prometheus:/a b"), False),
        (a_task("prometheus", port=0), False),
        (a_task("prometheus", host=""), False),
        (a_task("prometheus", scheduled=False), False),
        (a_task("prometheus", rejected=True), False),
        (a_task("prometheus", healthy=False), True),
        (a_task("prometheus", healthy=None), True),
    ],
)
def test_tasks_with_the_tag_and_a_port_are_targets(task, found):
    assert bool(groups([task], [H1])) == found
    assert bool(groups([task], [H1], healthy=True)) == (found and task.healthy)


def test_another_tag_can_be_asked_for():
    assert [one["labels"]["__metrics_path__"] for one in groups([a_task("scrape:/x")], [H1], tag="scrape")] == ["/x"]


@pytest.mark.parametrize(
    ("hosts", "target"),
    [
        ([], "h1:80"),
        ([SeenHost(Host(name="h1"))], "h1:80"),
        ([SeenHost(Host(name="h1", address="fd00::1"))], "[fd00::1]:80"),
    ],
)
def test_a_host_is_found_by_its_address_or_else_its_name(hosts, target):
    (group,) = groups([a_task("prometheus")], hosts)
    assert group["targets"] == [target]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "tasks.json"
    file.write_text("before")
    with file.open() as reader:
        put(file, written([]))
        assert reader.read() == "before", "whoever reads it sees one or the other"
    assert json.loads(file.read_text()) == []
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_can_not_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        put(tmp_path / "folder", "text")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(FileNotFoundError) as missing:
        put(tmp_path / "none" / "tasks.json", "text")
    assert missing.value.filename == str(tmp_path / "none" / "tasks.json"), "the file that was asked for, not a draft"


@pytest.fixture
def server():
    server = Server("127.0.0.1:0")
    server.text = "[]\n"
    server.start()
    yield server
    server.stop()


def test_the_groups_are_served_as_prometheus_wants_them(server):
    with urllib.request.urlopen(server.url, timeout=30) as answer:
        assert (answer.headers["Content-Type"], answer.read()) == ("application/json", b"[]\n")


def asked_as(server: Server, *hosts: str) -> int:
    """The status of the answer to a request with these Host headers."""
    connection = http.client.HTTPConnection(str(server.server_address[0]), server.server_address[1], timeout=30)
    connection.putrequest("GET", "/", skip_host=True)
    for host in hosts:
        connection.putheader("Host", host.replace("PORT", str(server.server_address[1])))
    connection.endheaders()
    with contextlib.closing(connection):
        return connection.getresponse().status


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:PORT", "localhost", "LocalHost:PORT", "localhost.:PORT", "localhost:9999"),
        *("127.0.0.1:PORT", "127.0.0.1", "127.0.0.2:PORT", "[::1]:PORT", "[::1]"),
    ],
)
def test_whoever_names_this_machine_is_answered(server, host):
    assert asked_as(server, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example:PORT", "evil.example", "127.0.0.1.evil.example:PORT", "localhost.evil.example:PORT", ""),
        *("evil.localhost:PORT", "localhost@evil.example:PORT", "localhost:PORT:evil", "localhost:x", "::1", "[::1"),
        *("192.0.2.1:PORT", "0.0.0.0:PORT", "[::]:PORT", "2130706433:PORT", "localhost, evil.example"),
    ],
)
def test_a_page_that_has_its_name_lead_here_reads_nothing(server, host):
    assert asked_as(server, host) == 403


def test_a_request_for_two_hosts_or_none_reads_nothing(server):
    assert asked_as(server, "localhost:PORT", "evil.example") == 403
    assert asked_as(server) == 403


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0"])
def test_it_is_served_to_this_machine_only(address):
    with pytest.raises(InvalidValue):
        Server(address)


def test_the_store_that_was_chosen_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv("SKED_BACKEND", raising=False)
    store = f"sqlite://{tmp_path / 'sked.db'}"
    assert run_command(plugin, "prometheus", "targets", "--backend", store).out == "[]\n"
    gone = run_command(plugin, "--backend", "consul://127.0.0.1:1", "prometheus", "targets")
    assert (gone.code, gone.out) == (6, "")
    ran = run_command(plugin, "prometheus", "targets", "--watch", "--backend", store)
    assert (ran.code, "--write" in ran.err) == (2, True)
    ran = run_command(plugin, "prometheus", "targets", "--listen", "nonsense", "--backend", store)
    assert (ran.code, "expected HOST:PORT" in ran.err) == (2, True)
