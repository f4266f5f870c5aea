"""Output is kept, and kept within bounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sked_bash import kept, logs

Eventually = Callable[..., Any]


def test_a_flood_is_capped_while_it_goes_on(rig: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 100_000)
    handle = rig.start(start="while :; do echo 0123456789; done")
    home = rig.home(handle)
    eventually(lambda: (home / "output.log.2").exists())
    elder = home / "output.log.1"

    def state() -> tuple[int, int] | None:
        try:
            return elder.stat().st_ino, elder.stat().st_mtime_ns
        except FileNotFoundError:  # it is being renamed
            return None

    for _ in range(5):
        before = eventually(state)
        eventually(lambda before=before: state() not in (None, before))
    names = ["output.log", "output.log.1", "output.log.2"]
    eventually(lambda: sorted(path.name for path in home.glob("output.log*")) == names)
    assert (home / "output.log.2").stat().st_size <= 100_000
    rig.executor.stop(handle, 0)
    assert sum(path.stat().st_size for path in home.iterdir()) < 300_000_000  # without the cap: no end


def test_what_is_cut_is_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 10)
    log = tmp_path / "output.log"
    for text in ("a" * 5 + "b" * 10, "c" * 11, "d" * 30, "e" * 10):
        log.write_text(text)
        assert logs.cap(tmp_path) == len(text)
    assert log.read_text() == "e" * 10
    assert (tmp_path / "output.log.1").read_text() == "d" * 10
    assert (tmp_path / "output.log.2").read_text() == "c" * 10
    assert sorted(path.name for path in tmp_path.glob("output.log*")) == ["output.log", "output.log.1", "output.log.2"]


def test_a_log_swapped_for_a_symlink_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 10)
    victim = tmp_path / "victim"
    victim.write_text("precious" * 10)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "output.log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        logs.open_log(folder)
    logs.cap(folder)
    assert victim.read_text() == "precious" * 10
    assert list(folder.iterdir()) == []


def test_only_the_last_logs_of_stopped_tasks_are_kept(
    rig: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT", 2)
    for number in range(4):
        handle = rig.start(number, start="echo $$; sleep 1000")
        eventually(lambda handle=handle: rig.output(handle))
        rig.executor.stop(handle, 5)
    assert sorted(path.name for path in rig.folder.glob("*/*")) == ["k-s-1-2", "k-s-1-3"]
    successor = rig.agent()
    again = successor.start(*rig.task(9, start="echo x; sleep 1000"), {})
    eventually(lambda: rig.output(again))
    successor.stop(again, 5)
    assert sorted(path.name for path in rig.folder.glob("*/*")) == ["k-s-1-3", "k-s-1-9"]


class TestTail:
    def test_the_last_lines_of_both_streams_are_told_also_after_the_end(self, rig: Any, eventually: Eventually) -> None:
        handle = rig.start(
            start="for i in 1 2 3 4; do echo out $i; echo err $i >&2; done; printf 'caf\\xc3 end'; exit 3"
        )
        eventually(lambda: rig.executor.inspect([handle])[handle].exit_code == 3)
        assert rig.executor.tail(handle, 3) == ["out 4", "err 4", "caf\ufffd end"]
        assert rig.executor.tail(handle, 100)[:2] == ["out 1", "err 1"]
        assert rig.agent().tail(handle, 1) == ["caf\ufffd end"]
        rig.executor.stop(handle, 1)
        assert rig.executor.tail(handle, 3) == []

    def test_one_that_says_nothing_has_none(self, rig: Any) -> None:
        assert rig.executor.tail(rig.start(start="exec sleep 1000"), 20) == []

    def test_only_the_end_of_a_large_log_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "output.log").write_bytes(b"x" * 10**6 + b"\nlast\r\n")
        assert logs.tail(tmp_path, 20) == ["last"]
        (tmp_path / "output.log").write_bytes(b"x" * 10**6)
        assert logs.tail(tmp_path, 20) == ["x" * logs.TAIL_BYTES]

    def test_a_log_that_was_swapped_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("precious")
        (tmp_path / "output.log").symlink_to(tmp_path / "secret")
        assert logs.tail(tmp_path, 20) == []
        (tmp_path / "output.log").unlink()
        os.mkfifo(tmp_path / "output.log")
        assert logs.tail(tmp_path, 20) == []
