"""Which files of the folder are programs, which of them are run, and what `sked plugins` says, which starts none."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sked_bridge import plugin
from sked_bridge.process import Process
from sked_bridge.programs import VARIABLE, Program, found
from sked_core.plugin import ExecutorContext, PluginError

HELLO = '#!/bin/sh\nread line; echo \'{"id":1,"result":{"protocol":1,"methods":["place"]}}\'; read line'


@pytest.fixture
def folder(write, tmp_path, monkeypatch) -> Path:
    write("scheduler-fine", HELLO)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "programs"))
    return tmp_path / "programs"


def test_names_say_what_a_program_is_and_other_files_are_none(folder, write):
    for name in ("executor-two", "secrets-three_3", "scheduler-", "scheduler-UP", "scheduler-a.sh", "other", "x-y"):
        write(name, HELLO)
    write("executor-two.json", "{}")
    write("executor-draft", HELLO).path.chmod(0o644)
    offered = {kind: [one.name for one in found(kind)] for kind in ("executor", "scheduler", "secrets")}
    assert offered == {"executor": ["two"], "scheduler": ["fine"], "secrets": ["three_3"]}


def test_what_is_not_run_is_a_problem_of_its_host_with_the_remedy(folder, write, monkeypatch):
    assert plugin.sked_problems() == []
    draft, loose = write("executor-draft", HELLO).path, write("secrets-loose", HELLO).path
    draft.chmod(0o644)
    loose.chmod(0o722)
    first, second = plugin.sked_problems()
    assert first.endswith(f"it is not executable; chmod +x {draft}")
    assert "secrets-loose is not run" in second
    monkeypatch.setenv(VARIABLE, str(folder / "none"))
    assert "No such file or directory" in plugin.sked_problems()[0]


def test_a_new_version_is_asked_once_it_is_there_though_an_old_one_is_still_busy(folder, write, make_pool, tmp_path):
    asked, go_on = tmp_path / "asked", tmp_path / "go-on"
    said = '#!/bin/sh\nread line; echo \'{"id":1,"result":{"protocol":1,"methods":["place"],"version":"V"}}\'\n'
    said += 'for id in 2 3 4; do read line; WAIT; echo \'{"id":\'$id\',"result":{"version":"V"}}\'; done\n'
    wait = f"touch {asked}; while [ ! -e {go_on} ]; do sleep 0.05; done"
    pool = make_pool(write("scheduler-fine", said.replace("V", "old").replace("WAIT", wait)))
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(pool.ask, "place", {}, dict, 60)
        try:
            while not asked.exists():
                assert not busy.done(), busy.result()
                time.sleep(0.02)
            write("new", said.replace("V", "new").replace("WAIT", ":")).path.rename(folder / "scheduler-fine")
            assert pool.ask("place", {}, dict, 60) == {"version": "new"}
        finally:
            go_on.touch()
        assert busy.result() == {"version": "old"}
    assert pool.ask("place", {}, dict, 60) == {"version": "new"}
    assert pool.hello().version == "new"


def test_a_folder_that_is_named_has_to_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(PluginError, match="No such file or directory"):
        found("executor")


def test_what_others_can_write_is_not_run(folder, write):
    program = found("scheduler")[0]
    program.judged()
    program.path.chmod(0o720)
    with pytest.raises(PluginError, match="can be written by its group"):
        program.judged()
    program.path.chmod(0o600)
    with pytest.raises(PluginError, match="not executable"):
        program.judged()
    program.path.chmod(0o700)
    folder.chmod(0o777)
    with pytest.raises(PluginError, match=r"folder above .* can be written by everybody"):
        program.judged()
    folder.chmod(0o755)
    (folder / "scheduler-link").symlink_to(program.path)
    with pytest.raises(PluginError, match="symbolic link"):
        found("scheduler")[1].judged()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_run(folder):
    program = found("scheduler")[0]
    os.chown(program.path, 12345, -1)
    with pytest.raises(PluginError, match="belongs to user 12345"):
        program.judged()


def test_it_is_judged_again_whenever_it_is_started(folder, make_pool):
    program = found("scheduler")[0]
    pool = make_pool(program)
    pool.hello()
    program.path.chmod(0o722)
    with pytest.raises(PluginError, match="is not run"):
        pool.ask("place", {}, dict, 10)


def test_the_file_that_was_judged_is_run_though_a_link_on_the_way_to_it_is_turned_elsewhere(
    folder, write, make_pool, monkeypatch, tmp_path
):
    mark, link = tmp_path / "ran", tmp_path / "link"
    other = tmp_path / "others"
    other.mkdir()
    (other / "scheduler-fine").write_text(f"#!/bin/sh\ntouch {mark}\n{HELLO}")
    (other / "scheduler-fine").chmod(0o755)
    link.symlink_to(folder)
    pool = make_pool(Program("scheduler", "fine", link / "scheduler-fine"))

    def turned(*given, **more):
        link.unlink()
        link.symlink_to(other)
        return Process(*given, **more)

    monkeypatch.setattr("sked_bridge.pool.Process", turned)
    assert pool.hello().methods == ["place"]
    assert not mark.exists()


def test_offering_starts_nothing(folder, write, tmp_path):
    write("executor-eager", f"#!/bin/sh\ntouch {tmp_path}/started")
    offers = plugin.sked_executors()
    executor = offers["eager"](ExecutorContext("h", "s", tmp_path / "state"))
    executor.close()
    assert list(plugin.sked_schedulers()) == ["fine"]
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "state").exists()
