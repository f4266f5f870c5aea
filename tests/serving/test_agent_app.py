"""What an agent offers over HTTP, with real processes behind it: whom it refuses, and what slow callers cost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rigs.tls import token_file
from sked_bash.executor import BashExecutor
from sked_bash.rights import BashPolicy
from sked_core.interfaces.executor import ExecutorContext, Handle
from sked_core.logic.lifecycle import Local
from sked_core.model.policy import Policy
from sked_core.model.types import Container, TaskId
from sked_core.runtime.agent.local_tasks import Slot
from sked_core.runtime.agent.task_access import TaskAccess
from sked_core.runtime.agent.task_runner import Held
from sked_core.serving.agent_app import agent_routes
from sked_core.serving.app import application
from sked_core.serving.command_socket import WINDOW_BYTES
from sked_core.serving.guard import Guard
from sked_core.serving.listening import Listen, open_tcp
from sked_core.serving.server import HttpServer
from sked_core.serving.tokens import Role
from sked_core.testing.builders import a_definition, a_task

ADMIN, READ = "admin-token-of-the-tests", "read-token-of-the-tests"


class Host:
    """A host's tasks, as its agent would have them, and what is offered of them."""

    def __init__(self, folder: Path) -> None:
        policy = Policy(sections={"bash": BashPolicy.development()})
        self.bash = BashExecutor(ExecutorContext("h1", f"store-{os.urandom(4).hex()}", folder / "state", policy))
        self.slots: dict[TaskId, Slot] = {}
        self.handles: list[Handle] = []
        self.access = TaskAccess(lambda: self.slots, {"bash": self.bash, "mute": object()})
        tokens = token_file(folder / "tokens", f"ann admin {ADMIN}", f"eyes read {READ}")
        listener = open_tcp(Listen("127.0.0.1:0", tokens=tokens), anonymous=Role.READ)
        self.url = listener.url
        self.server = HttpServer(Guard(application(agent_routes("h1", self.access))), [listener])
        self.server.start()

    def start(self, script: str, instance: int = 0, kind: str = "bash") -> str:
        container = Container(name="app", type=kind, executor={"start": script})
        task = a_task(instance=instance, definition=a_definition(containers=[container]))
        slot = self.slots[task.id] = Slot(Local(task.id), task=task)
        if kind == "bash":
            handle = self.bash.start(task, container, {"SKED_TASK_ID": task.id})
            self.handles.append(handle)
            slot.held.append(Held("bash", handle))
        return task.id

    def get(self, path: str, token: str = READ, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} | options.pop("headers", {})
        return httpx.get(self.url + path, headers=headers, timeout=30, **options)

    def exec(self, task: str, token: str = ADMIN, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        url = f"{self.url.replace('http', 'ws')}/v1/tasks/{task}/exec"
        return connect(url, additional_headers=headers, max_queue=1, **options)

    def close(self) -> None:
        self.server.stop()
        for handle in self.handles:
            self.bash.stop(handle, 0)
        self.bash.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


def eventually(holds: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class TestLogs:
    def test_lines_come_as_text_or_as_json_with_cursors(self, host: Host) -> None:
        task = host.start("echo one; echo two; exec sleep 1000")
        eventually(lambda: host.get(f"/v1/tasks/{task}/logs").text == "one\ntwo\n")
        assert host.get(f"/v1/tasks/{task}/logs?lines=1").text == "two\n"
        answer = host.get(f"/v1/tasks/{task}/logs", headers={"accept": "application/x-ndjson"})
        first, second, end = map(json.loads, answer.text.splitlines())
        assert (first["text"], second["text"], first["container"], end) == ("one", "two", "app", {"end": True})
        after = host.get(f"/v1/tasks/{task}/logs", params={"after": f"app={first['cursor']}"})
        assert after.text == "two\n"

    def test_what_is_not_there_is_told(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        mute = host.start("", instance=1, kind="mute")
        for path, status, said in (
            ("/v1/tasks/default-web-9-9/logs", 404, "no task default-web-9-9 here"),
            (f"/v1/tasks/{task}/logs?container=other", 404, "has no container other"),
            (f"/v1/tasks/{task}/logs?lines=-3", 400, "expected a number or all"),
            (f"/v1/tasks/{task}/logs?lines=1e9", 400, "expected a number or all"),
            (f"/v1/tasks/{mute}/logs", 501, "can't show logs"),
            ("/v1/tasks/..%2f..%2fetc%2fpasswd/logs", 400, "none of this server's"),
            ("/v1/tasks/%2e%2e/logs", 400, "none of this server's"),
            ("/v1/tasks/a%00b/logs", 400, "none of this server's"),
            ("/v1/tasks//logs", 400, "none of this server's"),
            ("/etc/passwd", 404, "there is no GET /etc/passwd"),
        ):
            answer = host.get(path)
            assert (answer.status_code, said in answer.json()["detail"]) == (status, True), (path, answer.text)

    def test_an_agent_of_another_host_is_not_taken_for_the_wanted_one(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        assert host.get(f"/v1/tasks/{task}/logs", headers={"sked-host": "h1"}).status_code == 200
        answer = host.get(f"/v1/tasks/{task}/logs", headers={"sked-host": "h2"})
        assert (answer.status_code, answer.json()["detail"]) == (421, "this is the agent of h1, not of h2")

    def test_a_reader_that_pauses_costs_neither_the_task_nor_memory(self, host: Host) -> None:
        task = host.start(
            "i=0; while [ $i -lt 45000 ]; do i=$((i+1)); printf '%0200d\\n' $i; done; echo done > ended; sleep 1000"
        )
        work = next((Path(host.bash._root) / task / "app").glob("work"))
        me = psutil.Process()
        with httpx.Client(base_url=host.url, headers={"authorization": f"Bearer {READ}"}, timeout=60) as client:
            readers = [client.stream("GET", f"/v1/tasks/{task}/logs?follow=1") for _ in range(4)]
            answers = [reader.__enter__() for reader in readers]
            lines = [answer.iter_lines() for answer in answers]
            assert [int(next(line)) for line in lines] == [1] * 4
            before = me.memory_info().rss
            eventually(lambda: (work / "ended").exists(), 120)
            assert me.memory_info().rss - before < 30_000_000
            for line in lines[:2]:
                number = 1
                while number < 45000:
                    number += 1
                    assert int(next(line)) == number
            for reader in readers:
                reader.__exit__(None, None, None)
        eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("logs of")])

    def test_following_ends_with_the_task_and_begins_again_with_its_next_start(self, host: Host) -> None:
        task = host.start("echo first; exit 3")
        lines: list[str] = []

        def read() -> None:
            path = f"{host.url}/v1/tasks/{task}/logs?follow=1"
            with httpx.stream("GET", path, headers={"authorization": f"Bearer {READ}"}, timeout=60) as answer:
                lines.extend(answer.iter_lines())
            lines.append("(ended)")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        eventually(lambda: lines == ["first"])
        eventually(lambda: host.bash.inspect(host.handles)[host.handles[0]].exit_code == 3)
        host.start("echo second; exec sleep 1000")
        eventually(lambda: host.get(f"/v1/tasks/{task}/logs").text == "second\n")
        time.sleep(0.5)
        del host.slots[TaskId(task)]
        host.bash.stop(host.handles[-1], 0)
        reader.join(60)
        assert lines == ["first", "second", "(ended)"]


class TestCommands:
    def test_only_an_admin_runs_commands_and_no_page_of_a_stranger(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        for token, options, status in (
            ("", {}, 401),
            ("nobody-knows-this-token", {}, 401),
            (READ, {}, 403),
            (ADMIN, {"origin": "http://evil.example"}, 403),
            (ADMIN, {"origin": "null"}, 403),
        ):
            with pytest.raises(InvalidStatus) as raised, host.exec(task, token, **options):
                pass
            assert raised.value.response.status_code == status
        with pytest.raises(InvalidStatus) as raised, host.exec("default-web-9-9"):
            pass
        assert raised.value.response.status_code == 404
        mute = host.start("", instance=1, kind="mute")
        with pytest.raises(InvalidStatus) as raised, host.exec(mute):
            pass
        assert json.loads(raised.value.response.body)["detail"] == f"{mute} does not run now"

    def test_without_tokens_whoever_is_on_the_machine_may_look_and_run_nothing(self, host: Host) -> None:
        task = host.start("echo hello; exec sleep 1000")
        listener = open_tcp(Listen("127.0.0.1:0"), anonymous=Role.READ)
        server = HttpServer(Guard(application(agent_routes("h1", host.access))), [listener])
        server.start()
        try:
            eventually(lambda: httpx.get(f"{listener.url}/v1/tasks/{task}/logs", timeout=60).text == "hello\n")
            with (
                pytest.raises(InvalidStatus) as raised,
                connect(f"{listener.url.replace('http', 'ws')}/v1/tasks/{task}/exec"),
            ):
                pass
            assert raised.value.response.status_code == 403
        finally:
            server.stop()

    @pytest.mark.parametrize(
        "first", ["", "{", "[]", '{"command": []}', '{"command": "ls"}', '{"command": [""]}', b"\xff"]
    )
    def test_nonsense_is_refused_and_harms_nobody(self, host: Host, first: str | bytes) -> None:
        task = host.start("exec sleep 1000")
        with host.exec(task) as websocket:
            websocket.send(first)
            assert "error" in json.loads(websocket.recv(timeout=60))
        with host.exec(task) as websocket:
            websocket.send(json.dumps({"command": ["echo", "fine"]}))
            assert websocket.recv(timeout=60) == b"\x01fine\n"

    def test_a_caller_that_sends_more_than_it_may_is_cut_off(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        with host.exec(task) as websocket:
            websocket.send(json.dumps({"command": ["sleep", "1001"]}))
            with pytest.raises(ConnectionClosed):
                for _ in range(100):
                    websocket.send(b"x" * (WINDOW_BYTES // 4))
                    time.sleep(0.01)
                websocket.recv(timeout=60)
        eventually(lambda: not _running("sleep", "1001"))

    def test_a_command_whose_caller_is_gone_is_ended(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        with host.exec(task) as websocket:
            websocket.send(json.dumps({"command": ["sh", "-c", "echo begun; sleep 1002"]}))
            assert websocket.recv(timeout=60) == b"\x01begun\n"
            websocket.socket.shutdown(2)  # as of a machine that died
        eventually(lambda: not _running("sleep", "1002"))

    def test_a_caller_that_does_not_read_holds_up_its_command_alone(self, host: Host) -> None:
        task = host.start("exec sleep 1000")
        me = psutil.Process()
        with host.exec(task) as websocket:
            websocket.send(json.dumps({"command": ["sh", "-c", "head -c 200000000 /dev/zero; echo; echo end >&2"]}))
            assert websocket.recv(timeout=60)[:1] == b"\x01"
            before = me.memory_info().rss
            with host.exec(task) as other:
                other.send(json.dumps({"command": ["sh", "-c", "sleep 2; echo fine"]}))
                assert other.recv(timeout=60) == b"\x01fine\n"
            assert me.memory_info().rss - before < 50_000_000
            with suppress(ConnectionClosed):
                websocket.close()


def _running(*command: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline() == list(command):
                found.append(process)
    return found
