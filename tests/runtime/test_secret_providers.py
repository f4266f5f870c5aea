"""The built-in providers of secrets: files of the host, and variables of the agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import Denied, InvalidValue, NotFound
from sked_core.interfaces.secrets import SecretContext
from sked_core.runtime.secrets import variables as secret_variables
from sked_core.runtime.secrets.files import SecretFiles
from sked_core.runtime.secrets.variables import SecretVariables
from sked_core.testing.samples import Keep, SecretSample
from sked_core.testing.secret_contract import CANARY, SecretContract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def files(folder: Path) -> SecretFiles:
    return SecretFiles(SecretContext("h", {"folder": str(folder)}))


def write(folder: Path, name: str, value: bytes | str, mode: int = 0o600) -> Path:
    """As people rotate one: a new file takes the place of the old one."""
    path = folder / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(value.encode() if isinstance(value, str) else value)
    new.chmod(mode)
    new.replace(path)
    return path


def some_files(folder: Path) -> tuple[SecretFiles, Keep]:
    folder = folder / "secrets"
    folder.mkdir(mode=0o700)

    def keep(name: str, value: str | None) -> None:
        if value is None:
            (folder / name).unlink()
        else:
            write(folder, name, value)

    return SecretFiles(SecretContext("h", {"folder": str(folder)})), keep


def some_variables(_folder: Path) -> tuple[SecretVariables, Keep]:
    """As if the agent had been started with them."""
    secret_variables._taken.clear()

    def keep(name: str, value: str | None) -> None:
        variable = "CANARY_" + name.replace("/", "__").replace("-", "_").upper()
        secret_variables._taken.pop(variable, None)
        if value is not None:
            secret_variables._taken[variable] = value

    return SecretVariables(SecretContext("h", {"prefix": "CANARY_"})), keep


class TestFiles(SecretContract):
    sample = SecretSample(name="file", fresh=some_files)


class TestVariables(SecretContract):
    sample = SecretSample(name="environment", fresh=some_variables, versions=False)

    @pytest.fixture(autouse=True)
    def _variables_of_this_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(secret_variables, "_taken", {})


def test_one_newline_at_the_end_of_a_file_is_none_of_the_secret(files: SecretFiles, folder: Path) -> None:
    for kept, value in ((b"pass\n", "pass"), (b"pass\r\n", "pass"), (b"pass\n\n", "pass\n"), (b"pass", "pass")):
        write(folder, "one", kept)
        assert files.read("one", "").value == value


@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o604, "read by everybody: chmod o-rwx"), (0o620, "others than its owner: chmod go-w"), (0o602, "chmod go-w")],
)
def test_a_file_that_others_may_read_or_write_is_refused(
    files: SecretFiles, folder: Path, mode: int, message: str
) -> None:
    write(folder, "one", CANARY, mode)
    with pytest.raises(Denied, match=message):
        files.read("one", "")
    write(folder, "one", CANARY, 0o640)  # a group of the agent's own may read it
    assert files.read("one", "").value == CANARY


def test_a_folder_that_others_may_write_is_refused_and_said_to_the_doctor(files: SecretFiles, folder: Path) -> None:
    write(folder, "shop/one", CANARY)
    for path in (folder / "shop", folder):
        path.chmod(0o777)
        with pytest.raises(Denied, match="written by others"):
            files.read("shop/one", "")
    assert "written by others" in files.problems()[0]
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    assert [line.partition(",")[0] for line in files.problems()] == [str(folder.parent)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(files: SecretFiles, folder: Path) -> None:
    os.chown(write(folder, "one", CANARY), 65534, -1)
    with pytest.raises(Denied, match="belongs to user 65534"):
        files.read("one", "")


def test_no_link_is_followed_neither_as_the_file_nor_on_the_way(
    files: SecretFiles, folder: Path, tmp_path: Path
) -> None:
    elsewhere = write(tmp_path / "elsewhere", "one", CANARY)
    (folder / "one").symlink_to(elsewhere)
    (folder / "shop").symlink_to(elsewhere.parent)
    for name in ("one", "shop/one"):
        with pytest.raises((Denied, NotFound), match="links are not followed"):
            files.read(name, "")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(Denied, match="links are not followed"):
        files.read("one", "")


def test_what_is_no_regular_file_is_refused_at_once(files: SecretFiles, folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(Denied):
            files.read(name, "")


def test_bytes_that_are_no_text_are_refused(files: SecretFiles, folder: Path) -> None:
    write(folder, "one", b"\xff\xfe" + CANARY.encode())
    with pytest.raises(Denied, match="no UTF-8") as raised:
        files.read("one", "")
    assert CANARY not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_folder_that_is_not_there_is_told_with_how_to_make_it(tmp_path: Path) -> None:
    files = SecretFiles(SecretContext("h", {"folder": str(tmp_path / "none")}))
    assert files.problems() == [f"there is no folder {tmp_path}/none: make it with  install -d -m 0700 {tmp_path}/none"]
    with pytest.raises(NotFound):
        files.read("one", "")


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (SecretFiles, {"folder": "relative"}, "expected an absolute path"),
        (SecretFiles, {"folder": "/etc/../tmp"}, "expected an absolute path"),
        (SecretFiles, {"foldr": "/x"}, 'did you mean "folder"'),
        (SecretFiles, {"folder": 7}, "expected text, got 7"),
        (SecretVariables, {"prefix": "lower_"}, "expected A-Z"),
        (SecretVariables, {"prefix": "SKED_"}, "not SKED_ alone"),
        (SecretVariables, {"prefix": ""}, "expected A-Z"),
    ],
)
def test_settings_that_can_t_be_are_refused(make: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        make(SecretContext("h", settings))


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretVariables]:
    monkeypatch.setattr(secret_variables, "_taken", {})
    monkeypatch.setenv("CANARY_SHOP__DB_PASSWORD", CANARY)
    monkeypatch.setenv("CANARY_BROKEN", os.fsdecode(b"abc\xff"))
    yield SecretVariables(SecretContext("h", {"prefix": "CANARY_"}))


def test_variables_are_taken_out_of_the_environment_so_that_no_child_has_them(variables: SecretVariables) -> None:
    assert variables.read("shop/db-password", "").value == CANARY
    inherited = subprocess.run([sys.executable, "-c", "import os; print(os.environ)"], capture_output=True, text=True)
    assert CANARY not in inherited.stdout
    another = SecretVariables(SecretContext("h", {"prefix": "CANARY_"}))
    assert another.read("shop/db-password", "").value == CANARY


@pytest.mark.parametrize("name", ["SHOP/DB-PASSWORD", "shop__db-password", "shop/db_password", "shop-/db", "shop.db"])
def test_no_two_names_stand_for_one_variable(variables: SecretVariables, name: str) -> None:
    with pytest.raises(NotFound, match="no variable stands for"):
        variables.read(name, "")


def test_a_variable_that_is_no_text_is_refused(variables: SecretVariables) -> None:
    with pytest.raises(Denied, match="no UTF-8"):
        variables.read("broken", "")
