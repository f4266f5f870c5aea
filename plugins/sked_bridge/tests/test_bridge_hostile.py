"""Programs that do not do what docs/bridge.md asks of them: each is named, with what it did, and ended."""

from __future__ import annotations

import os
import sys
import threading
import time

import psutil
import pytest

from sked_core.plugin import PluginError

HELLO = 'read line; echo \'{"id":1,"result":{"protocol":1,"methods":["place"]}}\'\n'
SHELL = "#!/bin/sh\n"
PYTHON = f"#!{sys.executable}\n"
PATIENT = 60.0
"""Where it is not the deadline that has to end it."""
SOON = 2.0

# What the program is, how long it is given for one request, and what has to be said of it.
CASES = {
    "exits at once": (SHELL + "echo no licence >&2; exit 3", PATIENT, r"ended with exit 3; it said: no licence"),
    "is killed": (SHELL + "kill -9 $$", PATIENT, r"was killed by signal 9"),
    "can't be executed": ("#!/no/such/interpreter\n", PATIENT, r"can't be started"),
    "is no program": ("just text", PATIENT, r"can't be started: Exec format error"),
    "never says hello": (SHELL + "sleep 1000", SOON, r"did not answer in time"),
    "never answers": (SHELL + HELLO + "read line; sleep 1000", SOON, r"did not answer in time"),
    "never reads": (SHELL + HELLO + "sleep 1000", SOON, r"did not (read the request|answer) in time"),
    "answers late": (
        SHELL + HELLO + 'read line; sleep 100; echo \'{"id":2,"result":{"hosts":[]}}\'; sleep 100',
        SOON,
        r"did not answer in time",
    ),
    "writes garbage": (SHELL + HELLO + "read line; echo hello world", PATIENT, r"wrote no answer .*: hello world"),
    "writes what drives a terminal": (
        SHELL + HELLO + "read line; printf '\\033[2Jboo\\n'",
        PATIENT,
        r"wrote no answer .*: \\x1b\[2Jboo",
    ),
    "writes what is no text": (SHELL + HELLO + "read line; printf '\\377\\376\\n'", PATIENT, r"wrote no answer"),
    "writes half a line": (
        SHELL + HELLO + 'read line; printf \'{"id":2,"res\'; exit 0',
        PATIENT,
        r"ended with exit 0",
    ),
    "writes half a line and waits": (SHELL + HELLO + "read line; printf '{\"id\"'; sleep 1000", SOON, r"in time"),
    "writes a line of 100 MB": (
        SHELL + HELLO + "read line; head -c 100000000 /dev/zero | tr '\\0' x; echo",
        PATIENT,
        r"wrote a line of more than 4194304 bytes",
    ),
    "writes without end": (SHELL + HELLO + "read line; exec cat /dev/zero", PATIENT, r"wrote a line of more than"),
    "answers another request": (
        SHELL + HELLO + 'read line; echo \'{"id":7,"result":{"hosts":[]}}\'',
        PATIENT,
        r"answered request 7, where 2 was asked",
    ),
    "answers with nothing": (SHELL + HELLO + "read line; echo '{\"id\":2}'", PATIENT, r"neither a result nor an error"),
    "answers with a list": (SHELL + HELLO + "read line; echo '[1, 2]'", PATIENT, r"wrote no answer"),
    "answers with wrong types": (
        SHELL + HELLO + 'read line; echo \'{"id":2,"result":{"hosts":"all of them"}}\'; sleep 1000',
        PATIENT,
        r"answered place with what can't be one: Expected `array`, got `str`",
    ),
    "answers in depth": (
        PYTHON + 'input()\nprint(\'{"id":1,"result":{"protocol":1}}\', flush=True)\n'
        "input()\nprint('{\"id\":2,\"result\":' + '[' * 100000 + ']' * 100000 + '}', flush=True)\ninput()",
        PATIENT,
        r"wrote no answer|can't be one",
    ),
    "answers twice": (
        SHELL + HELLO + 'read line; printf \'{"id":2,"result":{"hosts":[]}}\\nand more\\n\'; sleep 1000',
        PATIENT,
        r'wrote more than one line: {"id":2.*\\nand more',
    ),
    "says hello twice": (
        SHELL + HELLO.replace("echo", "printf '%s\\nready\\n'") + "sleep 1000",
        PATIENT,
        r'wrote more than one line: {"id":1.*\\nready',
    ),
    "greets on stdout": (
        SHELL + "echo Starting up...; " + HELLO,
        PATIENT,
        r"wrote (no answer .*|more than one line|what nobody had asked for): Starting up",
    ),
    "dies amid a request": (SHELL + HELLO + "read line; echo out of luck >&2; exit 9", PATIENT, r"exit 9.*out of luck"),
    "closes its output": (SHELL + HELLO + "read line; exec >&-; sleep 1000", PATIENT, r"closed its standard output"),
    "closes its input": (SHELL + HELLO + "exec <&-; sleep 1000", PATIENT, r"closed its standard input"),
    "dies and leaves a child with its files": (
        SHELL + HELLO + "read line; sleep 1000 & exit 4",
        PATIENT,
        r"ended with exit 4",
    ),
    "dies and leaves a child of another session": (
        SHELL + HELLO + "read line; setsid sleep 5 & exit 4",
        PATIENT,
        r"ended with exit 4",
    ),
    "speaks another version": (
        SHELL + 'read line; echo \'{"id":1,"result":{"protocol":2}}\'; sleep 1000',
        PATIENT,
        r"speaks version 2 of the protocol, and this Sked version 1",
    ),
    "refuses to say hello": (
        SHELL + 'read line; echo \'{"id":1,"error":{"message":"not on this host"}}\'; sleep 1000',
        PATIENT,
        r"program \S+ not on this host",
    ),
}
LARGE = {"candidates": [{"host": f"host-{number}", "text": "x" * 1000} for number in range(1000)]}
"""More than a pipe holds."""


def _left(path) -> list[psutil.Process]:
    """Processes that were begun by the program at ``path``, by their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(path) in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def _until_none_is_left(path) -> None:
    """What was killed is there for a moment."""
    deadline = time.monotonic() + PATIENT
    while left := _left(path):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.parametrize("case", CASES)
def test_a_program_that_misbehaves_is_named_with_what_it_did_and_ended(case, write, make_pool):
    text, seconds, said = CASES[case]
    program = write("scheduler-bad", text)
    pool = make_pool(program)
    with pytest.raises(PluginError, match=said) as raised:
        pool.ask("place", LARGE, dict[str, list[str]], seconds)
    assert str(program.path) in str(raised.value)
    assert len(str(raised.value)) < 4000
    pool.close()
    _until_none_is_left(program.path)


def test_one_that_ignores_the_end_of_its_input_is_ended_all_the_same(write, make_pool):
    ignores = "read line; echo '{\"id\":2,\"result\":{}}'; trap '' TERM HUP; while :; do sleep 1; done"
    program = write("scheduler-deaf", SHELL + HELLO + ignores)
    pool = make_pool(program)
    assert pool.ask("place", {}, dict, PATIENT) == {}
    assert _left(program.path)
    pool.close()
    _until_none_is_left(program.path)


def test_one_that_talks_while_nobody_asks_is_found_out_at_the_next_request(write, make_pool, tmp_path):
    chatty = (
        'read line; echo \'{"id":2,"result":{}}\'; until [ -e ' + str(tmp_path / "go") + " ]; do sleep 0.05; done; "
    )
    program = write("scheduler-chatty", SHELL + HELLO + chatty + f"echo by the way; touch {tmp_path}/said; sleep 1000")
    pool = make_pool(program)
    pool.ask("place", {}, dict, PATIENT)
    (tmp_path / "go").touch()
    while not (tmp_path / "said").exists():
        time.sleep(0.02)
    with pytest.raises(PluginError, match="wrote what nobody had asked for: by the way"):
        pool.ask("place", {}, dict, PATIENT)


def test_much_on_standard_error_is_bounded_and_holds_up_nobody(write, make_pool, caplog):
    caplog.set_level("INFO", "sked_bridge.process")
    noise = "yes complaint | head -n 200000 >&2; head -c 1000000 /dev/zero | tr '\\0' x >&2; "
    program = write(
        "scheduler-loud", SHELL + HELLO + "read line; " + noise + 'echo \'{"id":2,"result":{}}\'; read line'
    )
    pool = make_pool(program)
    assert pool.ask("place", {}, dict, PATIENT) == {}
    pool.close()
    lines = [record.getMessage() for record in caplog.records]
    assert "scheduler-loud: complaint" in lines
    assert any("says too much to be logged" in line for line in lines)
    assert max(map(len, lines)) < 3000


def test_one_that_died_idle_is_started_again_without_a_word(write, make_pool):
    pids = 'read line; echo \'{"id":2,"result":{"pid":\'$$\'}}\'; read line'
    pool = make_pool(write("scheduler-mortal", SHELL + HELLO + pids))
    first = pool.ask("place", {}, dict[str, int], PATIENT)["pid"]
    victim = psutil.Process(first)
    victim.kill()
    _gone(victim)
    second = pool.ask("place", {}, dict[str, int], PATIENT)["pid"]
    assert second != first


def _gone(process: psutil.Process) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_one_that_keeps_dying_is_given_longer_and_longer_pauses_until_it_answers(write, make_pool, clock, tmp_path):
    starts = tmp_path / "starts"
    program = write("scheduler-dying", SHELL + f"echo x >>{starts}; [ -e {tmp_path}/well ] || exit 1\n" + HELLO + _LOOP)
    pool = make_pool(program, clock=clock)

    def begun() -> int:
        return len(starts.read_text().split())

    for _ in range(2):  # the first time it is begun again at once
        with pytest.raises(PluginError, match=r"exit 1$"):
            pool.hello()
    assert begun() == 2
    pauses = []
    for _ in range(9):
        pause = 0.0
        while True:
            count = begun()
            with pytest.raises(PluginError, match=r"exit 1(; it is started again in \d+\.\d s)?$"):
                pool.hello()
            if begun() > count:
                break
            clock.advance(0.5)
            pause += 0.5
        pauses.append(pause)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    (tmp_path / "well").touch()
    clock.advance(30)
    assert pool.ask("place", {}, dict, PATIENT) == {}
    assert pool.hello().methods == ["place"]


_LOOP = "n=2; while read line; do echo '{\"id\":'$n',\"result\":{}}'; n=$((n + 1)); done\n"


def test_a_program_is_run_several_times_where_several_things_are_asked_and_bounded(write, make_pool, tmp_path):
    slow = f"n=2; while read line; do echo x >>{tmp_path}/asked; until [ -e {tmp_path}/go ]; do sleep 0.05; done; "
    answer = "echo '{\"id\":'$n',\"result\":{}}'; n=$((n + 1)); done"
    program = write("scheduler-slow", SHELL + HELLO + slow + answer)
    pool = make_pool(program)
    answers: list[object] = []

    def ask() -> None:
        answers.append(pool.ask("place", {}, dict, PATIENT))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    asked = tmp_path / "asked"
    while not asked.exists() or len(asked.read_text().split()) < 4:
        time.sleep(0.02)
    assert len(_left(program.path)) <= 4
    with pytest.raises(PluginError, match="too much to do"):
        pool.ask("place", {}, dict, 0.2)
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join(PATIENT)
    assert answers == [{}] * 6
    assert len(_left(program.path)) <= 2


def test_closing_ends_a_request_that_waits(write, make_pool):
    program = write("scheduler-stuck", SHELL + HELLO + "read line; sleep 1000")
    pool = make_pool(program)
    said: list[str] = []

    def ask() -> None:
        try:
            pool.ask("place", {}, dict, PATIENT)
        except PluginError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not any("sleep" in child.cmdline() for one in _left(program.path) for child in one.children()):
        time.sleep(0.02)
    pool.close()
    pool.close()
    thread.join(PATIENT)
    assert len(said) == 1
    assert "killed by signal 9" in said[0]
    with pytest.raises(PluginError, match="was ended"):
        pool.ask("place", {}, dict, PATIENT)


def test_a_new_version_of_the_file_is_run_from_the_next_request_on(write, make_pool):
    answer = SHELL + HELLO + 'while read line; do echo \'{"id":2,"result":{"is":"VERSION"}}\'; done'
    program = write("scheduler-new", answer.replace("VERSION", "old"))
    pool = make_pool(program)
    assert pool.ask("place", {}, dict, PATIENT) == {"is": "old"}
    fresh = program.path.with_name("fresh")
    fresh.write_text(answer.replace("VERSION", "new"))
    fresh.chmod(0o700)
    fresh.rename(program.path)
    assert pool.ask("place", {}, dict, PATIENT) == {"is": "new"}


def test_it_gets_a_clean_environment_and_no_files_of_ours(write, make_pool, monkeypatch):
    monkeypatch.setenv("SKED_TOKEN", "s3cret")
    tells = (
        "import json, os\ninput()\nprint(json.dumps({'id': 1, 'result': {'protocol': 1}}), flush=True)\ninput()\n"
        "print(json.dumps({'id': 2, 'result': {'env': [*os.environ], 'fds': os.listdir('/proc/self/fd')}}),"
        " flush=True)\ninput()\n"
    )
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        told = make_pool(write("scheduler-seeing", PYTHON + tells)).ask("place", {}, dict[str, list[str]], PATIENT)
    finally:
        os.close(held)
    assert "SKED_TOKEN" not in told["env"]
    assert "PATH" in told["env"]
    assert len(told["fds"]) == 4, "the three, and the one that lists them"
