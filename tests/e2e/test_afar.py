"""Logs and commands from anywhere: over restarts, roll-outs and cut lines, by TLS with a token, and refused."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.network import network, why_no_namespaces
from rigs.sked import PATIENCE, SKED, Rig
from rigs.tls import make_certificate, token_file

ADMIN, READ = "admin-token-of-the-tests", "read-token-of-the-tests"
COUNT = "i=0; while :; do i=$((i+1)); echo $SKED_TASK_ID $i; sleep 0.1; done"


class Following:
    """``sked logs -f`` in a process of its own, whose lines are collected."""

    def __init__(self, rig: Rig, *options: str) -> None:
        self.process = subprocess.Popen(
            [str(SKED), "logs", "-f", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=rig.env
        )
        self.lines: list[str] = []
        self.said: list[str] = []
        for stream, found in ((self.process.stdout, self.lines), (self.process.stderr, self.said)):
            threading.Thread(target=self._collect, args=(stream, found), daemon=True).start()

    def _collect(self, stream, found) -> None:
        for line in stream:
            found.append(line.rstrip("\n"))

    def until(self, what: str, holds) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds(self.lines):
            assert self.process.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < deadline, f"never: {what}; {self.lines[-5:]} {self.said}"
            time.sleep(0.05)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def following(rig: Rig) -> Iterator:
    begun: list[Following] = []

    def start(*options: str, of: Rig | None = None) -> Following:
        begun.append(Following(of or rig, *options))
        return begun[-1]

    yield start
    for one in begun:
        one.process.kill()
        one.process.wait(60)


def numbers(lines: list[str], task: str) -> list[int]:
    return [int(line.split()[-1]) for line in lines if f"{task} " in line]


def test_a_follower_misses_and_repeats_nothing_while_the_agent_is_killed_and_the_task_restarts(
    rig, manifest, following
):
    agent = rig.run("agent", host="a")
    rig.run("scheduler")
    rig.apply(manifest(desired=1, start=COUNT))
    rig.until("healthy", rig.healthy(1))
    logs = following("default-web-1-0")
    logs.until("ten lines", lambda lines: len(lines) > 10)
    agent.kill()
    logs.until("the loss is told", lambda _: any("trying again" in line for line in logs.said))
    agent = rig.run("agent", host="a")
    seen = len(logs.lines)
    logs.until("it goes on", lambda lines: len(lines) > seen + 10)
    found = numbers(logs.lines, "default-web-1-0")
    assert found == list(range(1, len(found) + 1))
    (pid,) = [pids[0] for pids in rig.processes().values()]
    os.kill(pid, signal.SIGKILL)
    logs.until("it begins anew", lambda lines: numbers(lines, "default-web-1-0").count(1) == 2)
    logs.until("and counts again", lambda lines: numbers(lines, "default-web-1-0")[-1] > 5)
    found = numbers(logs.lines, "default-web-1-0")
    again = found.index(1, 1)
    assert found[:again] == list(range(1, again + 1))
    assert found[again:] == list(range(1, len(found) - again + 1))
    assert numbers(rig.sked("logs", "default-web-1-0", "--previous").splitlines(), "default-web-1-0") == found[:again]
    assert logs.interrupt() == 130


def test_a_service_is_followed_over_all_hosts_and_a_roll_out(rig, manifest, following):
    rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler")
    rig.hosts_ready(2)
    rig.apply(manifest(desired=2, start=COUNT, bounds={"update": {"healthy_for": "1s"}}))
    rig.until("healthy", rig.healthy(2))
    assert {task["host"] for task in rig.items()} == {rig.host("a"), rig.host("b")}
    logs = following("web", "-n", "1")
    old = ["default-web-1-0", "default-web-1-1"]
    logs.until("both", lambda lines: all(len(numbers(lines, task)) > 3 for task in old))
    assert all(re.match(r"default-web-1-[01]/web \| default-web-1-[01] \d+$", line) for line in logs.lines)
    rig.apply(manifest(desired=2, version=2, start=COUNT, bounds={"update": {"healthy_for": "1s"}}))
    new = ["default-web-2-0", "default-web-2-1"]
    logs.until("the new ones", lambda lines: all(len(numbers(lines, task)) > 3 for task in new))
    rig.until("rolled out", rig.all_of(2, 2))
    for task in new:
        found = numbers(logs.lines, task)
        assert found == list(range(1, len(found) + 1)), "a task that comes is read from its first line"
    assert logs.interrupt() == 130
    kept = rig.sked("logs", old[0], "-n", "2").splitlines()
    assert len(kept) == 2, "what a task wrote that is gone is kept for a while"


def test_without_following_tasks_of_a_service_are_told_one_after_another_in_natural_order(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=11, start="echo one; echo two; exec sleep 1000"))
    rig.until("healthy", rig.healthy(11))
    rig.until("all have said it", lambda: rig.sked("logs", "web").count("two") == 11)
    for _ in range(3):
        said = [re.split(r"/web +\| ", line) for line in rig.sked("logs", "web").splitlines()]
        assert said == [[f"default-web-1-{number}", word] for number in range(11) for word in ("one", "two")]


def test_text_that_drives_a_terminal_does_not_unless_asked_for(rig, manifest):
    rig.run("combined", host="a")
    script = r"printf 'a\tb \033[31mred\033[0m \033]0;title\007 \033[2J\r\nsecond\n'; exec sleep 1000"
    rig.apply(manifest(desired=1, start=script))
    rig.until("said", lambda: "second" in rig.sked("logs", "web"))
    first, second = rig.sked("logs", "default-web-1-0").splitlines()
    assert first == "a\tb red \\x1b]0;title\\x07 \\x1b[2J"
    assert second == "second"
    assert "\x1b[31mred" in rig.sked("logs", "default-web-1-0", "--raw")
    line = json.loads(rig.sked("logs", "web", "-o", "jsonl", "-n", "1"))
    assert line | {"at": ""} == {
        "task": "default-web-1-0",
        "host": rig.host("a"),
        "container": "web",
        "stream": "",
        "at": "",
        "text": "second",
    }


def test_a_command_gets_input_and_its_code_comes_back(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=1))
    rig.until("healthy", rig.healthy(1))
    task = "default-web-1-0"
    assert rig.sked("exec", task, "--", "sh", "-c", "echo $SKED_TASK_ID; exit 7", code=7).strip() == task
    assert rig.sked("exec", "-i", task, "--", "tr", "a-z", "A-Z", stdin="hello\n") == "HELLO\n"
    assert rig.sked("exec", task, "--", "cat", stdin="not given\n") == ""
    assert "does not exist" in rig.sked("exec", task, "--", "sh", "-c", "echo does not exist >&2", errors=True)
    large = os.urandom(3_000_000)
    done = subprocess.run(
        [str(SKED), "exec", "-i", task, "--", "cat"], input=large, capture_output=True, env=rig.env, timeout=PATIENCE
    )
    assert done.stdout == large
    for arguments, code, said in (
        ((task, "--", "no-such-program"), 127, "no-such-program"),
        (("-c", "other", task, "--", "true"), 4, "has no container other"),
        (("web", "--", "true"), 2, "is a service"),
        (("default-web-1-7", "--", "true"), 4, "did you mean"),
        (("-t", task, "--", "true"), 2, "takes a terminal"),
    ):
        assert said in rig.sked("exec", *arguments, code=code, errors=True)


def test_a_shell_on_a_terminal_follows_its_size_and_ends_with_its_code(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=1))
    rig.until("healthy", rig.healthy(1))
    master, slave = pty.openpty()

    def size(rows: int, columns: int) -> None:
        import fcntl
        import termios

        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    size(31, 97)
    process = subprocess.Popen(
        [str(SKED), "exec", "default-web-1-0", "--", "bash", "--norc"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**rig.env, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    said = b""

    def until(text: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + PATIENCE
        while text not in said:
            assert time.monotonic() < deadline, said
            if select.select([master], [], [], 1.0)[0]:
                said += os.read(master, 65536)

    os.write(master, b"stty size; echo te''rm $TERM\n")
    until(b"31 97")
    until(b"term xterm")
    size(45, 120)
    process.send_signal(signal.SIGWINCH)
    os.write(master, b"until [ \"$(stty size)\" = '45 120' ]; do sleep 0.1; done; echo resi''zed\n")
    until(b"resized")
    os.write(master, b"sh -c 'echo aslee\"\"p; exec sleep 1000'\n")
    until(b"asleep")  # a shell that has only begun to start a command takes Ctrl-C for itself
    os.write(master, b"\x03")  # Ctrl-C is the command's
    said = b""
    until(b"bash-")
    os.write(master, b"echo st''ill here\n")
    until(b"still here")
    os.write(master, b"exit 5\n")
    assert process.wait(60) == 5
    os.close(master)


def test_without_an_agent_it_is_said_where_it_should_be(rig, manifest):
    scheduler = rig.run("scheduler")
    agent = rig.run("agent", host="a")
    rig.apply(manifest(desired=1, start="echo said; exec sleep 1000"))
    rig.until("it runs", rig.healthy(1))
    rig.until("said", lambda: "said" in rig.sked("logs", "default-web-1-0"))
    scheduler.terminate()  # or it would withdraw the task of a host that is away
    agent.terminate()
    for command in (("logs", "default-web-1-0"), ("exec", "default-web-1-0", "--", "true")):
        said = rig.sked(*command, code=6, errors=True)
        assert f"cannot reach the agent of {rig.host('a')} at unix:" in said
        assert f"is it running, and may this machine get there? (sked describe host/{rig.host('a')})" in said
    socket = Path(re.search(r"unix:(\S+)", rig.sked("hosts", "-o", "json"))[1].rstrip('",'))
    socket.unlink()  # as seen from another machine
    said = rig.sked("logs", "default-web-1-0", code=6, errors=True)
    assert f"on {rig.host('a')} the same command works" in said
    assert "--listen ADDRESS:PORT --tokens FILE --tls-cert FILE --tls-key FILE" in said


def test_an_address_that_others_get_to_is_refused_without_tokens_and_tls(rig):
    agent = rig.run("agent", "--listen", "0.0.0.0:0", host="a")
    assert agent.wait() == 2
    assert "--tokens FILE --tls-cert FILE --tls-key FILE" in agent.text()


def test_an_endpoint_that_can_not_be_had_takes_no_agent_down(rig, manifest):
    folder = rig.folder / "agent-a"
    folder.mkdir()
    (folder / "serve").write_text("in the way")
    agent = rig.run("agent", host="a")
    rig.run("scheduler")
    rig.apply(manifest(desired=1))
    rig.until("healthy", rig.healthy(1))
    assert "trying again" in agent.text()
    assert "offers no logs and commands" in rig.sked("logs", "web", code=6, errors=True)
    (folder / "serve").unlink()
    rig.until("it is offered after all", lambda: "serving on unix:" in agent.text())
    rig.until("and found", lambda: "unix:" in rig.sked("hosts", "-o", "json"))
    assert rig.sked("exec", "default-web-1-0", "--", "echo", "hello") == "hello\n"
    assert agent.alive()


class TestTwoMachines:
    """Agents in network namespaces, each with an address of its own, and nobody with their sockets."""

    @pytest.fixture
    def places(self, rig: Rig) -> Iterator:
        if why := why_no_namespaces():
            pytest.skip(why)
        net = network(f"afar-{rig.mark[:4]}", 2)
        try:
            net.build()
            yield net
        finally:
            net.remove()

    @pytest.fixture
    def remote(self, rig: Rig, places, manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
        tokens = token_file(tmp_path / "tokens", f"ann admin {ADMIN}", f"eyes read {READ}")
        for name, place in zip("ab", places.places, strict=True):
            certificate = make_certificate(tmp_path / name, place.address)
            options = ["--listen", f"{place.address}:9466", "--address", place.address, "--tokens", str(tokens)]
            options += ["--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)]
            rig.run("agent", *options, host=name, within=place.within)
        (tmp_path / "ca.pem").write_bytes(b"".join((tmp_path / name / "cert.pem").read_bytes() for name in "ab"))
        rig.run("scheduler")
        rig.hosts_ready(2)
        rig.apply(manifest(desired=2, start=COUNT))
        rig.until("healthy", rig.healthy(2))
        rig.until("reached", lambda: rig.sked("hosts", "-o", "json").count("https://") == 2)
        for path in rig.folder.glob("agent-*/serve/agent.sock"):
            path.unlink()  # another machine would not see them
        rig.env |= {"SKED_API_CACERT": str(tmp_path / "ca.pem"), "SKED_API_TOKEN": ADMIN}
        return rig

    def test_logs_and_commands_work_with_a_token_and_a_trusted_certificate(self, remote: Rig):
        said = remote.sked("logs", "web", "-n", "3")
        assert {line.split("/")[0] for line in said.splitlines()} == {"default-web-1-0", "default-web-1-1"}
        for task in remote.items():
            found = remote.sked("exec", task["id"], "--", "sh", "-c", "echo $SKED_HOST; ip -4 -o addr show dev eth0")
            assert task["host"] in found

    def test_a_follower_waits_for_a_host_that_is_cut_off(self, remote: Rig, places, following):
        logs = following("web", "-n", "1", of=remote)
        tasks = {task["host"]: task["id"] for task in remote.items()}
        there, away = tasks[remote.host("a")], tasks[remote.host("b")]
        logs.until("both", lambda lines: numbers(lines, there) and numbers(lines, away))
        places.cut(places.places[1])
        logs.until("it is told", lambda _: any(remote.host("b") in line for line in logs.said))
        before = len(numbers(logs.lines, there))
        logs.until("the other goes on", lambda lines: len(numbers(lines, there)) > before + 5)
        places.heal(places.places[1])
        before = len(numbers(logs.lines, away))
        logs.until("both again", lambda lines: len(numbers(lines, away)) > before + 5)
        for task in (there, away):
            found = numbers(logs.lines, task)
            assert found == list(range(found[0], found[0] + len(found)))

    def test_who_may_not_is_told_why(self, remote: Rig, tmp_path: Path):
        task = "default-web-1-0"
        remote.env["SKED_API_TOKEN"] = READ
        assert task in remote.sked("logs", task, "-n", "1")
        assert 'token "eyes" may read here, and this takes admin' in remote.sked(
            "exec", task, "--", "true", code=7, errors=True
        )
        remote.env["SKED_API_TOKEN"] = "nobody-knows-this-token"
        assert "this token is not known here" in remote.sked("logs", task, code=7, errors=True)
        del remote.env["SKED_API_TOKEN"]
        said = remote.sked("logs", task, code=7, errors=True)
        assert "a token is needed" in said
        assert "SKED_API_TOKEN_FILE" in said
        (tmp_path / "mine").write_text(f"{ADMIN}\n")
        remote.env["SKED_API_TOKEN_FILE"] = str(tmp_path / "mine")
        assert remote.sked("exec", task, "--", "echo", "hello") == "hello\n"
        remote.env.pop("SKED_API_CACERT")
        said = remote.sked("logs", task, code=7, errors=True)
        assert "is not trusted here" in said
        assert "SKED_API_CACERT" in said
