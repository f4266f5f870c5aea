"""What hooks are told, whatever becomes of the other side."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from rigs.tls import make_certificate
from sked_core.plugin import Event, InvalidManifest
from sked_core.testing.package_contract import PackageContract
from sked_core.testing.samples import PackageSample
from sked_notify import plugin, telling
from sked_notify.config import cluster_of
from sked_notify.posting import post


def an_event(what: str = "task.failed", **fields: str) -> Event:
    known = {"subject": "task/shop-web-1-0", "service": "web", "host": "h1", "why": "exit 7"}
    return Event(**{"at": "2026-01-01T00:00:00Z", "who": "agent h1", "what": what} | known | fields)


def hook(url: str, *lines: str, name: str = "ops", events: str = "['*']") -> str:
    return "\n".join(
        ["[[hook]]", f'name = "{name}"', f'url = "{url}"', f"events = {events}", 'group = "0s"', *lines, ""]
    )


def test_an_event_is_told_with_all_that_is_known_of_it(told, taker):
    tellers = told('name = "production"\n' + hook(taker.url))
    tellers.add(an_event(before="1", after="2"))
    (message,) = taker.wait(1)
    assert {name: message[name] for name in ("api", "name", "hook", "count", "omitted", "lost")} == {
        "api": "sked-notify/v1", "name": "production", "hook": "ops", "count": 1, "omitted": 0, "lost": 0,
    }  # fmt: skip
    assert message["events"] == [
        {
            "what": "task.failed", "subject": "task/shop-web-1-0", "cluster": "shop", "service": "web", "host": "h1",
            "why": "exit 7", "from": "1", "to": "2", "who": "agent h1", "at": "2026-01-01T00:00:00Z",
            "last_at": "2026-01-01T00:00:00Z", "count": 1,
        }
    ]  # fmt: skip
    assert taker.headers[0]["Content-Type"] == "application/json"


def test_a_crash_loop_is_one_message_for_each_window(told, taker):
    tellers = told(hook(taker.url).replace('"0s"', '"1h"'))
    tellers.add(an_event("task.started"))
    taker.wait(1)
    for number in range(500):
        tellers.add(an_event(why=f"exit {number}"))
    tellers.close(60)
    first, second = taker.wait(2)
    assert (first["count"], second["count"]) == (1, 500)
    (crash,) = second["events"]
    assert (crash["count"], crash["why"]) == (500, "exit 499")
    assert len(taker.bodies) == 2


def test_very_many_different_events_are_counted_beyond_a_bound(told, taker):
    tellers = told(hook(taker.url).replace('"0s"', '"1h"'))
    tellers.add(an_event())
    taker.wait(1)
    for number in range(1000):
        tellers.add(an_event(subject=f"task/shop-web-1-{number}"))
    tellers.close(60)
    message = taker.wait(2)[1]
    assert (len(message["events"]), message["omitted"], message["count"]) == (50, 950, 1000)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("events = ['task.*']", ["task.failed"]),
        ("events = ['host.lost', 'rollout.*']", ["host.lost"]),
        ("events = ['*']\nservices = ['w*']", ["task.failed"]),
        ("events = ['*']\nhosts = ['h2']", ["host.lost"]),
        ("events = ['*']\nsubjects = ['host/*']", ["host.lost"]),
    ],
)
def test_a_hook_is_told_what_it_asks_for(told, taker, line, wanted):
    tellers = told(hook(taker.url).replace("events = ['*']", line))
    tellers.add(an_event())
    tellers.add(an_event("host.lost", subject="host/h2", service="", host="h2"))
    tellers.close(60)
    (message,) = taker.wait(1)
    assert [one["what"] for one in message["events"]] == wanted


def test_what_is_not_taken_is_tried_again_and_told_once(told, taker):
    taker.answers = [500, 503, 429]
    tellers = told(hook(taker.url))
    tellers.add(an_event())
    messages = taker.wait(4)
    assert all(message == messages[0] for message in messages)
    tellers.close(60)
    assert len(taker.bodies) == 4


def test_what_is_refused_is_not_tried_again_and_the_next_message_says_what_was_lost(told, taker, caplog):
    taker.answers = [400]
    tellers = told(hook(taker.url))
    tellers.add(an_event())
    taker.wait(1)
    tellers.add(an_event("task.rejected"))
    second = taker.wait(2)[1]
    assert [one["what"] for one in second["events"]] == ["task.rejected"]
    assert second["lost"] == 1
    assert "notify ops: answered 400; events not told: 1" in caplog.text


def test_redirects_are_not_followed(told, taker, another):
    def moved(request):
        request.send_response(307)
        request.send_header("Location", another.url)
        request.send_header("Content-Length", "0")
        request.end_headers()

    taker.answers = [moved]
    tellers = told(hook(taker.url, 'headers = {Authorization = "Bearer secret-1"}'))
    tellers.add(an_event())
    tellers.close(60)
    taker.wait(1)
    assert another.bodies == []


def test_one_that_hangs_holds_up_no_other_and_no_end(told, taker, another, monkeypatch):
    released = threading.Event()

    def drip(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not released.wait(0.05):
            try:
                request.wfile.write(b"x")
                request.wfile.flush()
            except OSError:
                return

    taker.answers = [drip] * 10
    tellers = told(hook(taker.url, 'timeout = "60s"', name="slow") + hook(another.url, name="quick"))
    tellers.add(an_event())
    another.wait(1)
    taker.wait(1)
    began = time.monotonic()
    tellers.close(0.2)
    assert time.monotonic() - began < 30, "half of what it would take to wait for the other side"
    released.set()


def test_one_that_sends_a_byte_now_and_then_is_left_after_the_deadline(told, taker, caplog):
    stopped = threading.Event()

    def drip(request):
        try:
            while True:
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            stopped.set()

    taker.answers = [drip]
    tellers = told(hook(taker.url, 'timeout = "0.3s"'))
    tellers.add(an_event())
    taker.wait(2)
    assert stopped.wait(60), "the connection is given up"


def test_a_handshake_that_never_ends_is_given_up(told, monkeypatch, caplog):
    """However patient the socket: each byte of it comes in time."""
    stopped = threading.Event()
    connect = socket.create_connection

    def patient(*given, **named):
        connection = connect(*given, **named)
        connection.settimeout(None)
        return connection

    monkeypatch.setattr(socket, "create_connection", patient)

    def drip() -> None:
        taken, _ = listener.accept()
        with taken:
            try:
                taken.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb")  # a record of a hello of 16 KiB
                while True:
                    taken.sendall(b"x")
                    time.sleep(0.02)
            except OSError:
                stopped.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, daemon=True).start()
        tellers = told(hook(f"https://127.0.0.1:{listener.getsockname()[1]}/", 'timeout = "0.3s"'))
        tellers.add(an_event())
        assert stopped.wait(60), "the connection is given up"


def test_headers_without_end_are_not_read(told, taker):
    stopped = threading.Event()

    def chatter(request):
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                request.wfile.write(b"X: " + b"x" * 60_000 + b"\r\n")
        except OSError:
            stopped.set()

    taker.answers = [chatter]
    tellers = told(hook(taker.url, 'timeout = "60s"'))
    outcome = post(tellers._tellers[0]._hook, b"{}", "application/json")
    assert (outcome.status, outcome.why) == (0, "its answer begins with more than 64 KiB of headers")
    assert stopped.wait(60), "the connection is given up"


def test_an_answer_that_is_said_to_come_for_ever_is_not_waited_for(told, taker):
    def soon(request):
        with suppress(OSError):
            while True:
                request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    taker.answers = [soon]
    tellers = told(hook(taker.url, 'timeout = "60s"'))
    assert "64 KiB" in post(tellers._tellers[0]._hook, b"{}", "application/json").why


@pytest.mark.parametrize(
    ("subject", "service", "cluster"),
    [
        ("task/shop-web-1-0", "web", "shop"),
        ("task/a-b-web-api-12-3", "web-api", "a-b"),
        ("task/web-web-1-0-1-0", "web-1-0", "web"),
        ("task/shop-web-1-0", "", ""),
        ("task/shop-web-1-0", "other", ""),
        ("cluster/shop", "", "shop"),
        ("service/shop", "shop", ""),
        ("host/shop", "", ""),
    ],
)
def test_of_which_cluster_an_event_is(subject, service, cluster):
    assert cluster_of(an_event(subject=subject, service=service)) == cluster


def test_hooks_hear_of_the_clusters_and_services_that_they_name(told, taker):
    tellers = told(
        hook(taker.url, "clusters = ['shop']", "services = ['web', 'api-*']", 'text = "{cluster}"'), gather=True
    )
    others = [("task/shop2-web-1-0", "web"), ("task/shop-db-1-0", "db"), ("service/web", "web"), ("host/h1", "")]
    for subject, service in (*others, ("task/shop-web-1-0", "web"), ("task/shop-api-v2-1-0", "api-v2")):
        tellers.add(an_event(subject=subject, service=service))
    tellers.close(60)
    (message,) = taker.wait(1)
    told_of = [(one["cluster"], one["subject"]) for one in message["events"]]
    assert told_of == [("shop", "task/shop-web-1-0"), ("shop", "task/shop-api-v2-1-0")]


def test_a_closed_port_delays_the_end_by_no_more_than_tries(told, taker, caplog, free_port):
    tellers = told(hook(f"http://127.0.0.1:{free_port()}/secret-path", 'headers = {X-Key = "secret-key"}'), gather=True)
    tellers.add(an_event())
    tellers.add(an_event("task.rejected"))
    tellers.close(60)
    assert "notify ops: Connection refused; events not told: 2" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_secret_is_read_when_it_is_needed(told, taker, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("one\n")
    monkeypatch.setenv("X_TEAM", "blue")
    headers = f"headers = {{Authorization = {{file = '{token}', prefix = 'Bearer '}}, X-Team = {{env = 'X_TEAM'}}}}"
    tellers = told(hook(taker.url, headers))
    tellers.add(an_event())
    taker.wait(1)
    token.write_text("two\n")
    tellers.add(an_event())
    taker.wait(2)
    assert [one["Authorization"] for one in taker.headers] == ["Bearer one", "Bearer two"]
    assert taker.headers[0]["X-Team"] == "blue"


def test_the_address_can_be_a_secret(told, taker, tmp_path):
    (tmp_path / "url").write_text(taker.url)
    tellers = told(hook("X").replace('"X"', f"{{file = '{tmp_path / 'url'}'}}"))
    tellers.add(an_event())
    assert taker.wait(1)


def test_a_certificate_has_to_be_trusted(told, taker, tmp_path, caplog):
    made = make_certificate(tmp_path / "tls")
    taker.speak_tls(made.cert, made.key)
    tellers = told(hook(taker.url, name="mistrusts") + hook(taker.url, f'ca_file = "{made.cert}"', name="trusts"))
    tellers.add(an_event())
    (message,) = taker.wait(1)
    assert message["hook"] == "trusts"
    tellers.close(60)
    assert "notify mistrusts: its certificate is not trusted" in caplog.text
    assert len(taker.bodies) == 1


def test_slack_is_told_in_lines_and_called_by_nobody(told, taker):
    tellers = told('name = "production"\n' + hook(taker.url, 'format = "slack"'), gather=True)
    for _ in range(3):
        tellers.add(an_event(why="<!channel> & \x1b[2Jmore"))
    tellers.close(60)
    (message,) = taker.wait(1)
    assert message == {"text": "production:\ntask.failed task/shop-web-1-0 &lt;!channel&gt; &amp; \\x1b[2Jmore (×3)"}


def test_a_text_of_ones_own_names_what_it_wants(told, taker):
    text = 'text = "{count} x {service} on {host}: {what}{why}"'
    tellers = told(hook(taker.url, 'format = "text"', text, "why = false"))
    tellers.add(an_event())
    tellers.close(60)
    assert taker.bodies == [b"1 x web on h1: task.failed"]


def test_without_a_file_nothing_is_told_and_a_bad_one_is_an_error_each_time(file, monkeypatch, tmp_path):
    monkeypatch.setattr(telling, "_known", None)
    file.write_text("[[hook]]\n")
    for _ in range(2):
        with pytest.raises(InvalidManifest, match=r"hook\[0\]\.url: required"):
            plugin.sked_event(an_event())
    monkeypatch.setattr(telling, "_known", None)
    monkeypatch.delenv("SKED_NOTIFY")
    monkeypatch.setattr("sked_notify.config.SYSTEM_FILE", tmp_path / "none.toml")
    before = set(threading.enumerate())
    plugin.sked_event(an_event())
    assert set(threading.enumerate()) <= before


class TestPackage(PackageContract):
    sample = PackageSample(plugin="sked_notify.plugin")

    @pytest.fixture(autouse=True)
    def _hooks(self, file, taker, monkeypatch):
        file.write_text(hook(taker.url))
        monkeypatch.setattr(telling, "_known", None)
        yield
        if isinstance(telling._known, telling.Tellers):
            telling._known.close(60)
