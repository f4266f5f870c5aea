"""A compose file, imported and applied, runs on a real engine as it says."""

from __future__ import annotations

import urllib.request

from rigs.sked import Rig
from sked_compose import plugin
from sked_core.testing.commands import run_command

FILE = """\
services:
  web:
    image: {image}
    command: httpd -f -p 80 -h /www
    environment: {{GREETING: "${{WHO:-nobody}}, $$5"}}
    ports: [80]
    volumes: ["./www:/www:ro"]
    read_only: true
    init: false
    user: "65534"
    deploy: {{replicas: 2, resources: {{limits: {{memory: 32M, cpus: "0.1"}}}}}}
    healthcheck: {{test: "wget -qO- http://localhost/page || exit 1", interval: 1s}}
"""


def test_what_was_imported_runs_on_a_real_engine(busybox_image, tmp_path, monkeypatch):
    monkeypatch.setenv("WHO", "world")
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "page").write_text("imported\n")
    (tmp_path / "compose.yml").write_text(FILE.format(image=busybox_image))
    ran = run_command(plugin, "compose", "import", str(tmp_path / "compose.yml"), "--strict")
    assert ran.code == 0, ran.err
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    try:
        rig.run("combined", host="a")
        rig.sked("apply", "-f", "-", stdin=ran.out)
        tasks = rig.until("two healthy tasks", rig.healthy(2))
        for task in tasks:
            with urllib.request.urlopen(f"http://127.0.0.1:{task['port']}/page", timeout=30) as page:
                assert page.read() == b"imported\n"
        told = rig.sked("exec", tasks[0]["id"], "--", "sh", "-c", 'echo "$GREETING"; id -u; touch /x || echo read-only')
        assert told.splitlines()[:2] == ["world, $5", "65534"]
        assert "read-only" in told
    finally:
        rig.clean_up()
