"""What counts as a policy of this host, and all that keeps an agent from starting instead of guessing."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sked_core.errors import InvalidValue
from sked_core.interfaces.executor import ExecutorContext
from sked_core.model.policy import Policy
from sked_core.runtime.agent import policy_file
from sked_core.runtime.agent.policy_file import load
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.fakes import FakeEngine, FakeExecutor


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What containers of the executor here may have beside."""

    much: int = 0
    paths: list[str] = msgspec.field(default_factory=list)

    @classmethod
    def development(cls) -> Section:
        return cls(much=9)


class PolicedExecutor(FakeExecutor):
    policy_type = Section

    def denials(self, task: Any, container: Any) -> list[Any]:
        return []


def _break(context: ExecutorContext) -> FakeExecutor:
    raise ValueError("no engine")


@pytest.fixture
def plugins(offering: Callable[..., Plugins]) -> Plugins:
    """Executors ``policed``, ``plain`` and ``broken``."""
    engine = FakeEngine()
    made = {"policed": partial(PolicedExecutor, engine), "plain": partial(FakeExecutor, engine), "broken": _break}
    found = offering(sked_executors=made)
    assert found.names("executor") == ("broken", "plain", "policed")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One that counts: nobody else can write it."""
    path = tmp_path / "etc" / "policy.yml"
    path.parent.mkdir(mode=0o755)
    path.write_text("executors: [policed]\n")
    path.chmod(0o644)
    return path


def test_what_the_file_says_and_what_it_leaves_out(file: Path, plugins: Plugins) -> None:
    file.write_text("executors: [policed, docker]\nchecks: {targets: ['*']}\npoliced: {much: 3}\n")
    found = load(str(file), plugins)
    assert (found.file, found.development) == (file, False)
    assert str(file) in found.line()
    assert found.policy.executors == ["policed", "docker"]
    assert found.policy.checks.targets == ["*"]
    assert (found.policy.checks.scripts, found.policy.setup, found.policy.limits) == (
        False,
        Policy().setup,
        Policy().limits,
    )
    assert found.policy.section("policed", Section) == Section(much=3)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "executors: [docker]\n"])
def test_a_file_that_says_nothing_allows_what_no_file_does(file: Path, plugins: Plugins, text: str) -> None:
    file.write_text(text)
    assert load(str(file), plugins).policy == Policy()
    assert Policy().section("policed", Section) == Section()


def test_without_any_file_there_is_the_built_in_one_and_with_a_default_file_that(
    file: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file, "SYSTEM_FILE", file.parent / "missing.yml")
    found = load("", plugins)
    assert (found.policy, found.file) == (Policy(), None)
    assert "unprivileged docker containers" in found.line()
    monkeypatch.setattr(policy_file, "SYSTEM_FILE", file)
    assert load("", plugins).policy.executors == ["policed"]


def test_development_allows_what_is_installed_and_says_so_loudly(plugins: Plugins) -> None:
    found = load("development", plugins)
    policy = found.policy
    assert policy.executors == ["broken", "plain", "policed"]
    assert (policy.setup.allow, policy.checks.scripts, policy.checks.targets) == (True, True, ["*"])
    assert policy.artifacts.plain_http
    assert policy.artifacts.without_checksum
    assert policy.artifacts.private_addresses
    assert policy.section("policed", Section) == Section(much=9)
    assert "POLICY development" in found.line()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("executor: [bash]\n", 'policy.yml:1:1: executor: unknown field, and no executor of that name is installed on'),
        ("executor: [bash]\n", 'did you mean "executors"?'),
        ("checks:\n  scrips: true\n", 'policy.yml:2:3: checks.scrips: unknown field, did you mean "scripts"?'),
        ("policed: {mush: 1}\n", 'policed.mush: unknown field, did you mean "much"?'),
        ("policed: {much: lots}\n", "policed.much: expected a whole number"),
        ("policed:\n", "policed: expected a mapping, got nothing"),
        ("docker: {privileged: true}\n", "docker: executor docker is not installed on this host: pip install sked-d"),
        ("plain: {}\n", "plain: executor plain takes no settings here"),
        ("broken: {}\n", "broken: executor broken takes no settings here"),
        ("sections: {policed: {much: 1}}\n", "sections: unknown field"),
        ("setup: {allow: 'yes'}\n", 'setup.allow: expected true or false, got "yes"'),
        ("setup: {allow: yes}\n", "setup.allow: expected true or false"),
        ("limits: {pids: 0}\n", "limits.pids"),
        ("setup: {}\nsigning: {required: true}\n", "policy.yml:2:10: signing: required, but keys names none: nothing"),
        ("signing: {max_age: 0s}\n", "policy.yml:1:10: signing: max_age 0s is no time that passes"),
        ("executors: all\n", "executors: expected a list"),
        ("executors: [a]\nexecutors: [b]\n", "executors: duplicate key, first at line 1"),
        ("executors: [a\n", "YAML syntax"),
        ("- executors\n", "the document must be a mapping of the policy's sections"),
        ("executors: [docker]\n---\nexecutors: [bash]\n", "only one document can be a policy"),
        ("executors: !!python/object/apply:os.system [id]\n", "tag not allowed"),
        ("a: &a [*a]\n", "alias refers to itself"),
        ("executors: [\x07]\n", "control character"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_it_is_said_with_its_place(file: Path, plugins: Plugins, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidValue) as refused:
        load(str(file), plugins)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
    assert "$" not in str(refused.value)


def test_one_too_large_is_not_read_on(file: Path, plugins: Plugins) -> None:
    file.write_text("#" * 1024 * 1024 + "\n")
    with pytest.raises(InvalidValue, match="larger than"):
        load(str(file), plugins)


def _link(file: Path) -> None:
    file.rename(file.with_name("other.yml"))
    file.symlink_to("other.yml")


def _linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("real"))
    file.parent.symlink_to("real")
    file.parent.with_name("real").chmod(0o777)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.chmod(0o666), "policy.yml can be written by everybody"),
        (lambda file: file.chmod(0o664), "policy.yml can be written by its group"),
        (lambda file: file.parent.chmod(0o777), "etc, a folder above "),
        (lambda file: file.parent.chmod(0o775), "can be written by its group"),
        (lambda file: file.parent.parent.chmod(0o777), "can be written by everybody"),
        (_linked_folder, "can be written by everybody"),
        (_link, "is a symbolic link"),
        (_pipe, "is no plain file"),
        (lambda file: file.unlink(), "can't be read: No such file"),
        (lambda file: (file.unlink(), file.mkdir()), "is no plain file"),
        (lambda file: (file.unlink(), file.parent.rmdir()), "can't be read: No such file"),
    ],
)  # fmt: skip
def test_a_file_that_others_may_have_written_is_not_believed(
    file: Path, plugins: Plugins, spoil: Any, said: str
) -> None:
    spoil(file)
    with pytest.raises(InvalidValue) as refused:
        load(str(file), plugins)
    assert said in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_neither_file_nor_folder_belong_to_somebody_else(file: Path, plugins: Plugins, what: str) -> None:
    os.chown(file if what == "file" else file.parent, 65534, -1)
    with pytest.raises(InvalidValue, match="belongs to user 65534"):
        load(str(file), plugins)


def test_a_folder_with_the_sticky_bit_is_well(file: Path, plugins: Plugins) -> None:
    file.parent.chmod(0o1777)
    assert load(str(file), plugins).policy.executors == ["policed"]


def test_the_default_file_is_looked_at_as_closely(
    file: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file, "SYSTEM_FILE", file)
    _link(file)
    with pytest.raises(InvalidValue, match="symbolic link"):
        load("", plugins)
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(InvalidValue, match="symbolic link"):
        load("", plugins)


def test_a_configuration_file_that_others_may_write_can_t_name_one(file: Path, plugins: Plugins) -> None:
    config = file.with_name("sked.toml")
    config.write_text('policy = "development"\n')
    config.chmod(0o666)
    with pytest.raises(InvalidValue, match=r"sked\.toml can be written by everybody"):
        load("development", plugins, named_in=config)
    config.chmod(0o644)
    assert load("development", plugins, named_in=config).development


def test_an_executor_that_is_allowed_but_not_there_is_doubted(plugins: Plugins) -> None:
    said = list(policy_file.doubts(Policy(executors=["docker", "polised"]), plugins))
    assert said == ['it allows executor polised, which is not installed, did you mean "policed"?']
