"""The pages say what is true: every route is listed, and every example of the README works as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sked_web.app import table

from .conftest import Web

ROOT = Path(__file__).resolve().parents[3]
HELLO = """\
clusters:
  - {name: default, services: [hello]}
services:
  - {name: hello, task_name: hello, task_version: 1, desired: 2}
task_definitions:
  - {name: hello, version: 1, containers: [{name: hello, type: bash, executor: {start: sleep 1000}}]}
"""


def test_every_route_is_listed_with_its_role(web: Web) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| (GET|POST|DELETE) \| `([^`]+)` \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    wanted = [(route.method, route.path, route.role.word, route.summary) for route in table(web.state)]
    assert sorted(rows) == sorted(wanted)


def test_every_example_of_the_readme_works(web: Web, tmp_path: Path) -> None:
    page = (ROOT / "plugins" / "sked_web" / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "hello.yml").write_text(HELLO)
    web.apply(HELLO.encode())
    web.host("h1")
    for block in blocks:
        script = "set -eu\n" + block.replace("http://127.0.0.1:8642", web.url)
        environment = {"PATH": "/usr/bin:/bin", "no_proxy": "*"}
        ran = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, (block, ran.stdout, ran.stderr)
        if "scale" in block and "stream" in block:
            assert '"kind":"service","name":"hello"' in ran.stdout
        if "%{http_code}" in block:
            assert ran.stdout.strip() == "304"
