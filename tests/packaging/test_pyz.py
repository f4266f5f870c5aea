"""One file with Sked in it: built by the script, run by a Python that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.sked import PATIENCE, Proc, Rig, service
from rigs.wheels import only
from rigs.wheels import run as run_to_its_end
from sked_core.model import codec, keys
from sked_core.model.decisions import Decision
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pyz(house: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pyz")
    command = [sys.executable, ROOT / "scripts/build-pyz", "--output", folder / "sked.pyz"]
    command += ["--wheels", house, "bash", "binpack", "consul"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run_to_its_end(command, env=clean | only(house), cwd=folder)
    return folder / "sked.pyz"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "SKED_BACKEND": f"sqlite://{tmp_path}/sked.db"}


@pytest.fixture
def run(pyz: Path, environment: dict[str, str], tmp_path: Path) -> Run:
    """``run("tasks")`` with a Python that looks at no variable and at none of the user's packages."""

    def call(*arguments: str, file: Path = pyz, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(file), *arguments]
        env = environment | more
        ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=PATIENCE)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran

    return call


def test_it_has_the_plugins_that_were_asked_for_and_no_others(run: Run) -> None:
    assert run("version").stdout.startswith("sked ")
    rows = {row["name"]: row for row in json.loads(run("plugins", "-o", "json").stdout)["items"]}
    assert set(rows) == {"core", "bash", "binpack", "consul"}
    assert not [row for row in rows.values() if row["error"]]


def test_it_runs_tasks_and_places_them_and_asks_a_shadow(pyz: Path, tmp_path: Path) -> None:
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    rig.env |= {"HOME": str(tmp_path / "home")}
    rig.env.pop("PYTHONPATH", None)
    try:
        log = tmp_path / "pyz.log"
        command = [sys.executable, "-I", "-S", str(pyz), "run", "combined", "--shadow", "binpack"]
        command += ["--host", rig.host("h"), "--state-dir", str(tmp_path / "agent")]
        rig.procs.append(Proc(command, log, rig.env))
        applied = subprocess.run(
            [sys.executable, "-I", "-S", str(pyz), "apply", "-f", "-", "--wait", "--timeout", "60s"],
            input=json.dumps(service(desired=2)), capture_output=True, text=True, env=rig.env, timeout=PATIENCE,
        )  # fmt: skip
        assert applied.returncode == 0, applied.stderr + log.read_text()
        store = open_store(rig.backend, Plugins([]))

        def answered() -> list[object]:
            entries = store.read(keys.DECISIONS).entries.values()
            made = [codec.decode(entry.value, Decision) for entry in entries]
            return [batch.shadow for one in made for batch in one.batches if batch.shadow]

        shadows = rig.until("the shadow's answer", answered)
        store.close()
        assert not [one for one in shadows if one.fault], "its process finds the modules as well"
        rig.procs[-1].terminate()
    finally:
        rig.clean_up()


def test_it_is_unpacked_once(run: Run, tmp_path: Path) -> None:
    run("version")
    cache = tmp_path / "home" / ".cache" / "sked"
    (folder,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    before = (folder / "click").stat().st_mtime_ns
    run("version")
    assert [path.name for path in cache.iterdir()] == [folder.name]
    assert (folder / "click").stat().st_mtime_ns == before


def test_two_that_start_at_once_end_up_with_one_folder(pyz: Path, environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(pyz), "version"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate(timeout=PATIENCE)[0][:5] for one in both] == ["sked ", "sked "]
    assert len(list((tmp_path / "home" / ".cache" / "sked").iterdir())) == 1


def test_what_a_killed_start_has_left_is_not_taken_for_the_whole(run: Run, tmp_path: Path) -> None:
    run("version")
    cache = tmp_path / "home" / ".cache" / "sked"
    (folder,) = cache.iterdir()
    folder.rename(cache / f"{folder.name}.draft")
    (cache / f"{folder.name}.draft" / "click" / "__init__.py").unlink()
    assert run("version").stdout.startswith("sked ")
    assert folder.is_dir()


@pytest.mark.parametrize("why", ["it can't be made", "others can write it"])
def test_a_cache_that_is_no_good_is_done_without(run: Run, tmp_path: Path, why: str) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    scratch.mkdir()
    if why == "it can't be made":
        home.write_text("a file")
    else:
        (home / ".cache" / "sked").mkdir(parents=True)
        (home / ".cache" / "sked").chmod(0o777)
    assert run("version", TMPDIR=str(scratch)).stdout.startswith("sked ")
    assert list(scratch.iterdir()) == [], "gone with the process"
    assert why == "it can't be made" or list((home / ".cache" / "sked").iterdir()) == []


def test_another_python_is_told_which_one_it_takes(pyz: Path, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(pyz) as source, zipfile.ZipFile(other, "w") as target:
        for one in source.infolist():
            content = source.read(one)
            target.writestr(
                one, content.replace(b'"python": "3.', b'"python": "4.') if one.filename == "made.json" else content
            )
    said = run("version", file=other, code=1).stderr
    assert "is made for Python 4." in said and "run it with:" in said
    assert "Traceback" not in said


def test_a_path_that_leads_out_of_the_folder_is_refused(pyz: Path, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    other.write_bytes(pyz.read_bytes())
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("site-packages/../../../../escaped", "x")
    ran = run("version", file=other, code=1)
    assert "leads out of the folder" in ran.stderr
    assert not list(tmp_path.rglob("escaped"))


def test_the_file_holds_nothing_of_the_machine_that_made_it(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        for one in archive.infolist():
            if one.filename.endswith((".json", "RECORD", ".py", "METADATA")):
                assert str(ROOT).encode() not in archive.read(one), one.filename
            assert one.date_time[:3] in ((1980, 1, 1), (1980, 1, 2)), one.filename
