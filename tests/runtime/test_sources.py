"""Where manifests come from: files, folders, standard input; and what is no file at all."""

import io
import os
import socket

import pytest

from sked_core.model.yaml_source import MAX_BYTES
from sked_core.runtime.sources import load_sources


def load(*paths, stdin=b""):
    return load_sources([str(path) for path in paths], io.BytesIO(stdin))


def only_problem(*paths, **options):
    (source,) = load(*paths, **options)
    (problem,) = source.problems
    assert source.documents == ()
    return str(problem)


def test_a_folder_gives_its_manifests_by_name_and_not_those_inside_its_folders(tmp_path):
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "README.md"):
        (tmp_path / name).write_text("clusters: []")
    (tmp_path / "inner.yml").mkdir()
    (tmp_path / "inner.yml" / "d.yml").write_text("clusters: []")
    assert [source.file for source in load(tmp_path)] == [str(tmp_path / n) for n in ("a.yml", "b.yaml", "c.json")]


def test_several_paths_are_read_in_their_order_and_each_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.yml", "a.yml"):
        (tmp_path / name).write_text("clusters: []")
    assert [source.file for source in load("b.yml", "a.yml", "./b.yml")] == ["b.yml", "a.yml"]


def test_a_dash_is_standard_input():
    (source,) = load("-", stdin=b"clusters: [{name: a}]")
    assert source.file == "<stdin>"
    assert source.documents[0].data == {"clusters": [{"name": "a"}]}


def test_no_more_is_read_than_a_file_may_hold(tmp_path):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = b" " * len(buffer)
            return len(buffer)

    (source,) = load_sources(["-"], io.BufferedReader(Endless()))
    assert str(source.problems[0]) == f"<stdin>:1:1: the file is larger than {MAX_BYTES} bytes"
    big = tmp_path / "big.yml"
    with big.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    assert only_problem(big) == f"{big}:1:1: the file is larger than {MAX_BYTES} bytes"


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.yml")
    assert only_problem(tmp_path / "pipe.yml").endswith("is a FIFO, not a file; use - to read from a pipe")
    assert only_problem(tmp_path).endswith("is a FIFO, not a file; use - to read from a pipe")


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.yml"))
        assert "can't be read: " in only_problem(tmp_path / "s.yml")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty0"])
def test_a_device_is_refused(device):
    if not os.path.exists(device):
        pytest.skip(f"this machine has no {device}")
    line = only_problem(device)
    assert "is a device, not a file" in line or "can't be read: " in line


def test_what_can_not_be_opened_says_why(tmp_path):
    assert only_problem(tmp_path / "none.yml") == f"{tmp_path / 'none.yml'}: no such file"
    (tmp_path / "loop.yml").symlink_to(tmp_path / "loop.yml")
    assert "can't be read: Too many levels of symbolic links" in only_problem(tmp_path / "loop.yml")
    (tmp_path / "gone.yml").symlink_to(tmp_path / "none")
    assert only_problem(tmp_path / "gone.yml").endswith("no such file")
    assert "can't be read: embedded null byte" in only_problem("a\0b")


def test_a_folder_without_manifests_is_a_problem(tmp_path):
    assert only_problem(tmp_path) == f"{tmp_path}: the folder holds no *.yml, *.yaml, *.json"


def test_a_name_that_would_drive_the_terminal_is_shown_harmlessly(tmp_path):
    (tmp_path / "\x1b[2J.yml").write_text("[")
    assert only_problem(tmp_path).isprintable()


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.yml").write_bytes(b"PATH=/bin\0HOME=/\0")
    assert "control character U+0000 not allowed" in only_problem(tmp_path / "x.yml")
