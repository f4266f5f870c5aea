"""docs/secrets.md can be followed: its folder is made, its policy is taken, and gives its manifest what it asks for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sked_core.interfaces.secrets import SecretContext
from sked_core.logic.secret_gate import denials
from sked_core.model.secret_refs import references
from sked_core.model.types import Container
from sked_core.runtime.agent.policy_file import parse
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.secrets.files import SecretFiles
from sked_core.runtime.sources import load_sources
from sked_core.testing.builders import a_cluster, a_definition, a_task

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "secrets.md").read_text()
MANIFEST, POLICY = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(MADE,) = re.findall(r"^```\n(install .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_policy_gives_the_task_of_the_manifest_its_secrets_and_no_other_service(tmp_path: Path) -> None:
    (tmp_path / "manifest.yml").write_text(MANIFEST)
    (source,) = load_sources([str(tmp_path / "manifest.yml")], None)  # type: ignore[arg-type]
    (container,) = source.documents[0].data["task_definitions"][0]["containers"]
    assert len(references(container["executor"])) == 2
    policy, problems = parse(POLICY.encode(), "policy.yml", Plugins.load())
    assert problems == []
    definition = a_definition("api", containers=[Container(**container)])
    allowed = a_task(definition=definition, service="api", cluster=a_cluster("shop"))
    other = a_task(definition=definition, service="web", cluster=a_cluster("shop"))
    assert denials(policy.secrets, allowed) == []
    assert denials(policy.secrets, other)


def test_the_folder_is_one_that_the_provider_takes(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    commands = MADE.replace("/etc/sked/secrets", str(folder))
    subprocess.run(["bash", "-ec", commands], check=True, timeout=60)
    files = SecretFiles(SecretContext("h", {"folder": str(folder)}))
    assert files.problems() == []
    assert files.read("shop/db-password", "").value == "correct horse"
