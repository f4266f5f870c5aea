"""``sked policy``: what a host would say of manifests before it has to, and agents that refuse to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sked_core.runtime.agent import policy_file

MANIFEST = """\
clusters: [{name: default, services: [web]}]
services: [{name: web, task_name: web, task_version: 1, desired: 1}]
task_definitions:
  - name: web
    version: 1
    provide_port: true
    containers:
      - name: well
        type: docker
        executor: {image: "nginx:1"}
        checks: [{http: "http://127.0.0.1:$PROVIDED_PORT/"}]
      - name: ill
        type: docker
        executor: {image: "nginx:1"}
        setup: ["true"]
        checks: [{tcp: "10.0.0.9:22"}, {tcp: "10.0.0.9:23"}, {script: "true"}]
"""
Sked = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(policy_file, "SYSTEM_FILE", tmp_path / "none.yml")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "web.yml"
    path.write_text(MANIFEST)
    return path


def test_each_container_is_allowed_or_every_gate_is_named_and_the_lines_together_allow_it(
    sked: Sked, manifest: Path, tmp_path: Path
) -> None:
    ran = sked("policy", "test", "-f", str(manifest), "-o", "json")
    assert ran.code == 7
    well, ill = json.loads(ran.out)["items"]
    assert (well["of"], well["service"], well["cluster"], well["allowed"]) == ("web/1/well", "web", "default", True)
    gates = [one["gate"] for one in ill["denials"]]
    assert gates == ["setup.allow", "checks.targets", "checks.targets", "checks.scripts"]

    ran = sked("policy", "test", "-f", str(manifest))
    assert ran.code == 7
    assert "web/1/well as web in default: allowed" in ran.out
    assert "web/1/ill as web in default: denied" in ran.out
    lines = ran.out[ran.out.rindex("\nsetup:") :]
    assert yaml.safe_load(lines)["checks"]["targets"] == ["10.0.0.9:22", "10.0.0.9:23"]
    file = tmp_path / "policy.yml"
    file.write_text(lines)
    ran = sked("policy", "test", "-f", str(manifest), "--policy", str(file))
    assert (ran.code, ran.out.count("allowed"), ran.out.count("denied")) == (0, 2, 0)


def test_what_holds_is_shown_with_its_defaults_and_can_be_a_policy_again(sked: Sked, tmp_path: Path) -> None:
    ran = sked("policy", "show")
    assert ran.code == 0
    assert "there is no" in ran.err
    shown = yaml.safe_load(ran.out)
    assert shown["executors"] == ["docker"]
    assert shown["limits"]["default_memory"] == 512
    assert shown["docker"]["privileged"] is False
    file = tmp_path / "policy.yml"
    file.write_text(ran.out)
    assert yaml.safe_load(sked("policy", "show", "--policy", str(file)).out) == shown
    (item,) = json.loads(sked("policy", "show", "--policy", "development", "-o", "json").out)["items"]
    assert item["policy"]["setup"]["allow"] is True
    assert "POLICY development" in item["from"]


def test_a_policy_is_checked_as_an_agent_would(sked: Sked, tmp_path: Path, manifest: Path) -> None:
    file = tmp_path / "policy.yml"
    file.write_text("executors: [bsh]\n")
    ran = sked("policy", "check", str(file))
    assert ran.code == 0
    assert 'bsh, which is not installed, did you mean "bash"?' in ran.err
    file.write_text(
        "setup: {user: nosuch-a}\nchecks: {user: nosuch-b}\nbash: {run_as: nosuch-c, users: ['*', nosuch-d]}\n"
    )
    tried = sked("policy", "test", "-f", str(manifest), "--policy", str(file))
    for ran in (sked("policy", "check", str(file)), tried):
        for field, name in zip(("setup.user", "checks.user", "bash.run_as", "bash.users"), "abcd", strict=True):
            assert f"warning: {field}: there is no user nosuch-{name} on this host: make it" in ran.err
    file.write_text("setup: {alow: true}\n")
    ran = sked("policy", "check", str(file))
    assert ran.code == 3
    assert f'{file}:1:9: setup.alow: unknown field, did you mean "allow"?' in ran.err


def _run_agent(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sked_core.surface.cli", "run", "agent", "--host", "h-1"]
    command += ["--backend", f"sqlite://{tmp_path}/s.db", "--state-dir", str(tmp_path / "agent")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | env)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "can't be read: No such file"),
        (lambda file: file.chmod(0o666), "can be written by everybody"),
        (lambda file: (file.rename(file.with_name("x")), file.symlink_to("x")), "is a symbolic link"),
        (lambda file: file.write_text("setup: {alow: true}"), "setup.alow: unknown field"),
        (lambda file: file.write_text("a: [b"), "YAML syntax"),
    ],
)  # fmt: skip
def test_an_agent_without_the_policy_that_it_was_to_have_does_not_start(tmp_path: Path, spoil: Any, said: str) -> None:
    file = tmp_path / "policy.yml"
    file.write_text("executors: [docker]\n")
    spoil(file)
    ran = _run_agent(tmp_path, SKED_POLICY=str(file))
    assert ran.returncode == 3, ran.stderr
    assert said in ran.stderr
    assert str(file) in ran.stderr
    assert f"from: SKED_POLICY={file}" in ran.stderr
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("signing: {required: true, keys: [/nowhere/keys]}", "policy /nowhere/keys can't be read"),
        ("secrets: {providers: {file: {folder: here}}}", "policy secrets.providers.file.folder: expected an absolute"),
    ],
)
def test_an_agent_whose_policy_names_what_can_t_be_does_not_start_either(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(text)
    ran = _run_agent(tmp_path, SKED_POLICY=str(file))
    assert ran.returncode == 3, ran.stderr
    assert said in ran.stderr


def test_the_policy_is_a_setting_like_others(sked: Sked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "sked.toml"
    config.write_text('policy = "/srv/one.yml"\n')

    def shown() -> tuple[str, str]:
        items = json.loads(sked("config", "show", "--config", str(config), "-o", "json").out)["items"]
        (found,) = [one for one in items if one["name"] == "policy"]
        return found["value"], found["origin"]

    assert shown() == ("/srv/one.yml", f"{config}: policy = /srv/one.yml")
    monkeypatch.setenv("SKED_POLICY", "development")
    assert shown() == ("development", "SKED_POLICY=development")
