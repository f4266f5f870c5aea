"""Each package builds a wheel that works in an environment with nothing else in it."""

from __future__ import annotations

import json
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import sked_core

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.fixture(scope="module")
def installed(wheels, environment, tmp_path_factory):
    """All packages, from their wheels, and what they depend on."""
    everything = environment(tmp_path_factory.mktemp("everything") / "venv")
    everything.install(*wheels)
    return everything


def _metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_every_package_has_a_wheel_of_the_same_version(wheels):
    versions = {meta["Name"]: meta["Version"] for meta in map(_metadata, wheels)}
    expected = ["sked-core", *(name.replace("_", "-") for name in PLUGINS)]
    assert versions == dict.fromkeys(expected, sked_core.__version__)


def test_a_wheel_holds_its_package_and_nothing_else(wheels):
    for wheel in wheels:
        package = wheel.name.partition("-")[0]
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.partition("/")[0] for name in archive.namelist()}
        assert tops == {package, f"{package}-{sked_core.__version__}.dist-info"}, wheel.name


def test_core_has_an_extra_for_each_plugin(wheels):
    (core,) = (wheel for wheel in wheels if wheel.name.startswith("sked_core-"))
    extras = set(_metadata(core).get_all("Provides-Extra"))
    assert extras == {name.removeprefix("sked_") for name in PLUGINS} | {"fuzz", "signing", "testing"}


def test_the_command_says_its_version(installed):
    assert sked_core.__version__ in installed.run("sked", "version").stdout


def test_every_plugin_is_found_and_works(installed):
    rows = json.loads(installed.run("sked", "plugins", "-o", "json").stdout)["items"]
    errors = {row["name"]: row["error"] for row in rows}
    declared = set()
    for name in PLUGINS:
        project = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())["project"]
        declared |= set(project["entry-points"]["sked"])
    assert declared <= set(errors)
    assert not any(errors.values()), errors


def test_core_alone_reads_the_embedded_store(wheels, environment, tmp_path):
    alone = environment(tmp_path / "venv")
    alone.install(*(wheel for wheel in wheels if wheel.name.startswith("sked_core-")))
    services = json.loads(alone.run("sked", "services", "-o", "json").stdout)
    assert services["items"] == []
