"""``sked locks`` and ``sked config show``: who holds what, and what counts here and why."""

from __future__ import annotations

import json

import pytest

from sked_core.client import settings
from sked_core.client.settings import ConfigFile
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Presence
from sked_core.runtime.lock import LeaseKeeper, try_lock
from sked_core.testing.clock import FakeClock


class TestLocks:
    def test_none_is_usual(self, sked, store):
        ran = sked("locks")
        assert (ran.code, len(ran.out.splitlines())) == (0, 2)

    def test_one_that_a_scheduler_took_says_since_when_and_whether_it_is_there(self, sked, store):
        clock = FakeClock()
        for service, holder in (("web", "s-1"), ("api", "s-2")):
            assert try_lock(store, LeaseKeeper(store, clock), keys.service_lock(service), holder)
        store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])
        found = json.loads(sked("locks", "-o", "json").out)["items"]
        assert [(one["service"], one["holder"], one["running"]) for one in found] == [
            ("api", "s-2", False),
            ("web", "s-1", True),
        ]
        assert found[0]["since"] == "2023-11-14T22:13:20Z"
        assert "2023-11-14T22:13:20Z" in sked("locks").out

    def test_what_others_wrote_can_not_drive_a_terminal(self, sked, store):
        store.commit([Put(keys.service_lock("web"), b"\xff\x1b[2J")])
        ran = sked("locks")
        assert (ran.code, "\x1b" in ran.out) == (0, False)


RULES = ("plugins.allow", "plugins.deny", "plugins.require")


class TestConfig:
    def shown(self, sked, *args: str) -> dict[str, dict]:
        return {one["name"]: one for one in json.loads(sked("config", "show", "-o", "json", *args).out)["items"]}

    def test_every_setting_is_there_with_its_default(self, sked):
        found = self.shown(sked)
        assert {*ConfigFile.__struct_fields__, *RULES} - {"plugins"} <= set(found)
        assert found["max_tasks"] == {"name": "max_tasks", "value": "", "default": "no limit", "origin": ""}
        assert found["backend"]["value"].startswith("sqlite://")
        assert "no limit" in sked("config", "show").out

    def test_each_value_is_shown_with_the_nearest_place_that_names_it(self, sked, tmp_path, monkeypatch):
        own, system = tmp_path / "own.toml", tmp_path / "system.toml"
        own.write_text('host = "web-1"\nmax_tasks = 7\n[tags]\nrack = "r7"\n')
        system.write_text('host = "other"\nprefix = "team"\ndisk = "20g"\nallow_executors = ["bash", "docker"]\n')
        monkeypatch.setattr(settings, "SYSTEM_FILE", system)
        monkeypatch.setenv("SKED_BACKEND", "consul://10.0.0.1:8500")
        found = self.shown(sked, "--config", str(own), "--prefix", "mine")
        assert {name: (one["value"], one["origin"]) for name, one in found.items() if one["origin"]} == {
            "backend": ("consul://10.0.0.1:8500", "SKED_BACKEND=consul://10.0.0.1:8500"),
            "prefix": ("mine", "--prefix mine"),
            "host": ("web-1", str(own)),
            "max_tasks": ("7", str(own)),
            "tags": ("rack=r7", str(own)),
            "disk": ("20g", str(system)),
            "allow_executors": ("bash, docker", str(system)),
        }
        table = sked("config", "show", "--origin", "--config", str(own)).out
        assert any(line.startswith("disk") and str(system) in line for line in table.splitlines())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CONSUL_HTTP_TOKEN", "s3cret"),
            ("ETCDCTL_USER", "root:s3cret"),
            ("ETCDCTL_PASSWORD", "s3cret"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("SKED_API_TOKEN", "s3cret"),
            ("CONSUL_HTTP_ADDR", "https://me:s3cret@consul:8501"),
            ("SKED_BACKEND", "consul://me:s3cret@consul:8501"),
        ],
    )
    def test_secrets_are_masked_wherever_they_stand(self, sked, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        for args in ((), ("--origin",), ("-o", "json")):
            ran = sked("config", "show", *args)
            assert (ran.code, "s3cret" in ran.out + ran.err) == (0, False)
            assert "***" in ran.out

    def test_files_that_hold_secrets_are_named(self, sked, monkeypatch):
        monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", "/etc/consul.token")
        assert self.shown(sked)["CONSUL_HTTP_TOKEN_FILE"]["value"] == "/etc/consul.token"

    def test_a_mistake_in_a_file_is_the_same_error_as_everywhere(self, sked, tmp_path):
        (tmp_path / "bad.toml").write_text("hots = 1\n")
        ran = sked("config", "show", "--config", str(tmp_path / "bad.toml"))
        assert (ran.code, ran.out) == (3, "")
        assert 'did you mean "host"?' in ran.err
