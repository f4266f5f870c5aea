"""`sked plugins check` of every package in plugins/: what is cheap of it, and that there are samples for the rest."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest

from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.check import packaging, trial
from sked_core.testing.check.findings import Verdict
from sked_core.testing.check.kits import classes_of, samples_of, twins_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent.name.replace("_", "-") for path in ROOT.glob("plugins/*/pyproject.toml"))
SERVERS = ("CONSUL_HTTP_ADDR", "ETCDCTL_ENDPOINTS", "AWS_REGION", "AWS_DEFAULT_REGION", "VAULT_ADDR")
OF_SERVERS = {"sked-consul", "sked-etcd", "sked-dynamodb", "sked-vault"}


@pytest.fixture(scope="module")
def rows():
    return Plugins.load().rows()


@pytest.mark.parametrize("package", PACKAGES)
def test_it_keeps_the_rules_of_packaging(package, rows):
    own = [row for row in rows if row.package == package]
    assert own
    found = list(packaging.look(distribution(package), trial.points_of(package), own))
    assert [one for one in found if one.verdict is not Verdict.OK] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_all_that_it_offers_can_be_tried(package, rows, monkeypatch):
    for variable in SERVERS:
        monkeypatch.delenv(variable, raising=False)
    points = trial.points_of(package)
    samples = samples_of(points)
    twins = twins_of(points, samples)
    offered = {part for row in rows if row.package == package for part in row.provides}
    assert offered <= {*samples, *twins}
    classes = classes_of(samples, twins)
    for name, kit in classes.items():
        tests = [test for test in dir(kit) if test.startswith("test_")]
        if package in OF_SERVERS:
            with pytest.raises(pytest.skip.Exception, match=r"^needs [A-Z_]+"):
                getattr(kit(), *tests)()
        else:
            assert tests, name
