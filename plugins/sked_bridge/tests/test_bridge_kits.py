"""The examples pass the kits of what they are, as the kits try any plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.needs import program as needed
from sked_bridge.programs import Program
from sked_bridge.samples import executor_sample, scheduler_sample
from sked_bridge.secrets import BridgedSecrets
from sked_core.plugin import SecretContext, SecretProvider, Unavailable
from sked_core.testing.executors import ExecutorContract
from sked_core.testing.samples import Keep, SecretSample
from sked_core.testing.scheduler_contract import SchedulerContract
from sked_core.testing.secret_contract import SecretContract

from .conftest import EMPTIEST, FOLDER, PROCESS, QUIETEST


class TestNode(SchedulerContract):
    sample = scheduler_sample(EMPTIEST)
    examples = 10


class TestPerl(SchedulerContract):
    sample = scheduler_sample(QUIETEST)
    examples = 10


@pytest.fixture(autouse=True)
def _programs() -> None:
    needed("node", "nodejs")
    needed("perl")


def _secrets(folder: Path) -> tuple[SecretProvider, Keep]:
    def keep(name: str, value: str | None) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if value is not None:
            path.write_text(value)

    return BridgedSecrets(FOLDER, SecretContext("host-1", {"folder": str(folder)})), keep


class TestShellSecrets(SecretContract):
    sample = SecretSample(name="folder", fresh=_secrets)


def test_what_keeps_a_provider_from_being_used_is_told(tmp_path: Path) -> None:
    provider = BridgedSecrets(FOLDER, SecretContext("host-1", {"folder": str(tmp_path / "none")}))
    assert provider.problems() == ["its folder is not there"]
    provider.close()
    missing = BridgedSecrets(Program("secrets", "none", tmp_path / "secrets-none"), SecretContext("host-1", {}))
    (problem,) = missing.problems()
    assert "No such file" in problem
    with pytest.raises(Unavailable, match="No such file"):
        missing.read("shop/one", "")


def test_what_a_provider_of_secrets_wrote_amiss_is_quoted_nowhere(write, caplog) -> None:
    caplog.set_level("DEBUG")
    for answer in ('{"id":2,"result":{"value":["canary-5e"]}}', "canary-5e", '{"id":9,"result":"canary-5e"}'):
        hello = '{"id":1,"result":{"protocol":1,"methods":["read"]}}'
        text = f"#!/bin/sh\nread line; echo '{hello}'\nread line; echo '{answer}'; echo canary-5e; read line\n"
        provider = BridgedSecrets(write("secrets-leaky", text), SecretContext("host-1", {}))
        with pytest.raises(Unavailable) as raised:
            provider.read("shop/one", "")
        assert "canary-5e" not in str(raised.value) + raised.value.hint
        provider.close()
    assert "canary-5e" not in caplog.text


class TestShellExecutor(ExecutorContract):
    sample = executor_sample(PROCESS)
    kills = 4
