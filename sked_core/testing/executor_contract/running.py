"""Containers that run a shell: how they end, what they are given and what they may use, and what is told of it."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial
from typing import Any

import pytest

from sked_core.interfaces.executor import Handle, State
from sked_core.model.policy import Limits
from sked_core.testing.executor_contract.base import KitBase, Rig, need, open_policy

HOSTILE = {
    "KIT_LINES": "one\ntwo\r\nthree",
    "KIT_QUOTES": 'it\'s "so" `id` \\ \\n',
    "KIT_SHELL": "$(touch /tmp/kit); $HOME ${PATH} & | > < * ? ~ ! #",
    "KIT_UNICODE": "grüße, 🌍\u202e\ufeff",
    "KIT_CONTROL": "\x01\x1b[31m\x7f\t",
    "KIT_SPACES": "  both ends  ",
    "KIT_EQUALS": "=a=b==",
    "KIT_EMPTY": "",
    "KIT_OPTION": "--privileged",
    "KIT_TEMPLATE": "{x} %s {{.}} $PROVIDED_PORT",
    "KIT_LONG": "x" * 60_000,
    "_kit_lower1": "a name like any other",
    "PROVIDED_PORT": "20000",
}
SHOWN = "echo {0} $(printf '%s' \"${{{0}}}\" | od -An -v -tx1 | tr -d ' \n')."
"""Shell that tells the bytes of a variable."""


class RunTests(KitBase):
    """What a container does and is told, where the sample has a ``script``."""

    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 1", 1), ("exit 77", 77), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
    )
    def test_how_it_ended_is_told_by_each_instance(self, rig: Rig, executor: Any, script: str, code: int) -> None:
        handle = rig.shell(executor, script)
        seen = rig.ended(executor, handle)
        assert (seen.state, seen.exit_code) == (State.EXITED, code)
        assert seen.detail, "nothing is said for people"
        assert "\n" not in seen.detail
        if code > 128:
            assert str(code - 128) in seen.detail, f"the signal {code - 128} is not named: {seen.detail}"
        assert rig.executor().recover() == {handle: seen}

    def test_it_runs_on_after_what_it_started_first_has_ended(self, rig: Rig, executor: Any) -> None:
        handle = rig.shell(executor, "sleep 0; true; sleep 1000")
        assert rig.seen(executor, handle).state is State.RUNNING

    def test_it_has_the_environment_that_was_handed_over_to_the_letter(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task(), HOSTILE)
        if not rig.visible(executor, handle):
            pytest.skip("the processes of containers can't be looked at from here")
        for pid in rig.processes():
            given = variables(pid)
            for name, value in HOSTILE.items():
                assert given.get(name) == value, f"{name} is {given.get(name)!r:.100} to the container"

    def test_a_script_reads_that_environment(self, rig: Rig, executor: Any) -> None:
        need(self.sample, "script", "tail")
        names = [name for name in HOSTILE if name != "KIT_LONG"]
        handle = rig.start(executor, rig.task(rig.script("; ".join(map(SHOWN.format, names)))), HOSTILE)
        rig.ended(executor, handle)
        wanted = [f"{name} {HOSTILE[name].encode().hex()}." for name in names]
        rig.until(partial(self.tells, executor, handle, wanted), f"{wanted} is told, not {executor.tail(handle, 50)}")

    def test_its_last_lines_are_told_also_of_one_that_has_ended(self, rig: Rig, executor: Any) -> None:
        need(self.sample, "tail", "script")
        handle = rig.shell(executor, "for i in 1 2 3 4 5; do echo line $i; done; printf 'no \\377 end'; exit 9")
        rig.ended(executor, handle)
        every = [*(f"line {number}" for number in range(1, 6)), "no \ufffd end"]
        for one in (executor, rig.executor()):
            assert rig.until(partial(self.tells, one, handle, every), f"{every} is told")
            assert one.tail(handle, 2) == every[-2:]
            assert one.tail(handle, 1) == every[-1:]

    def test_the_last_lines_of_very_many_are_told(self, rig: Rig, executor: Any) -> None:
        need(self.sample, "tail", "script")
        handle = rig.shell(executor, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done")
        rig.ended(executor, handle)
        wanted = ["19998", "19999", "20000"]
        assert rig.until(lambda: executor.tail(handle, 3) == wanted, f"{wanted} is told")

    def test_an_end_is_told_of(self, rig: Rig, executor: Any) -> None:
        """It may be missed now and then: one of a few is enough."""
        told = threading.Event()
        callers: list[int] = []

        def notify() -> None:
            callers.append(threading.get_ident())
            told.set()

        executor.watch(notify)
        for number in range(5):
            rig.shell(executor, "exit 0", instance=number)
            if told.wait(self.patience / 5):
                break
        assert callers, "nobody was told of five ends"
        assert threading.get_ident() not in callers, "it was told in the thread that called something else"

    def test_it_can_be_reached_on_the_port_that_it_takes(self, rig: Rig, executor: Any) -> None:
        if self.sample.listens is None:
            pytest.skip("the sample has no `listens`")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        handle = rig.start(executor, rig.task(self.sample.listens(port), port=port), {"PROVIDED_PORT": str(port)})

        def answers() -> bool:
            with socket.socket() as asking:
                asking.settimeout(5)
                return asking.connect_ex(("127.0.0.1", port)) == 0

        rig.until(answers, f"something listens on port {port}")
        executor.stop(handle, 0)
        assert not answers(), "its port is taken after it was stopped"

    def test_more_memory_than_it_may_have_is_not_had(self, rig: Rig, executor: Any) -> None:
        self.limited("memory")
        handle = rig.shell(executor, "head -c 400000000 /dev/zero | tail | wc -c; echo survived", memory=32)
        rig.ended(executor, handle)
        assert "400000000" not in executor.tail(handle, 9), "it had 400 MB where it may have 32"

    def test_more_processes_than_it_may_have_are_not_had(self, rig: Rig) -> None:
        self.limited("pids")
        few = open_policy(self.sample)
        policy = type(few)(executors=few.executors, sections=few.sections, limits=Limits(pids=50))
        executor = rig.executor(policy=policy)
        many = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); sleep 1000 & done; wait"
        handle = rig.shell(executor, f"sh -c '{many}'; exec sleep 1000")
        if not rig.visible(executor, handle):
            pytest.skip("the processes of containers can't be looked at from here")

        def settled() -> int:
            """How many there are, once they get no more."""
            before = len(rig.processes())
            time.sleep(1)
            now = len(rig.processes())
            return now if before == now >= 30 else 0

        assert rig.until(settled, "its processes get no more") <= 60, "it had more than 50 processes"

    def tells(self, executor: Any, handle: Handle, lines: list[str]) -> bool:
        return bool(executor.tail(handle, 50) == lines)

    def limited(self, what: str) -> None:
        need(self.sample, "script", "tail")
        if what not in self.sample.limits:
            pytest.skip(f"the sample says of no limit on {what} (`limits`)")


def variables(pid: int) -> dict[str, str]:
    """The environment of a process."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            parts = file.read().split(b"\0")
    except OSError:
        return dict(HOSTILE)  # it has ended meanwhile
    return dict(part.decode(errors="surrogateescape").split("=", 1) for part in parts if b"=" in part)
