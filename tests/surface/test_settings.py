"""Where a setting comes from, and what is wrong with a configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sked_core.client import settings
from sked_core.errors import InvalidManifest


@pytest.fixture
def system_file(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "sked.toml"


def test_the_nearest_place_wins(tmp_path, monkeypatch, system_file) -> None:
    def backend(**flags: str) -> str:
        return settings.resolve(**flags).backend.value

    assert backend() == f"sqlite://{tmp_path}/state/sked/sked.db"
    system_file.write_text('backend = "memory://etc"\nprefix = "from-etc"\n')
    assert backend() == "memory://etc"
    chosen = tmp_path / "chosen.toml"
    chosen.write_text('backend = "memory://chosen"\n')
    assert backend(config=str(chosen)) == "memory://chosen"
    monkeypatch.setenv("SKED_CONFIG", str(chosen))
    assert backend() == "memory://chosen"
    assert settings.resolve().prefix.value == "from-etc"
    monkeypatch.setenv("SKED_BACKEND", "memory://environment")
    assert backend() == "memory://environment"
    assert backend(backend="memory://flag") == "memory://flag"


def test_each_value_tells_its_origin_without_secrets(tmp_path, monkeypatch) -> None:
    assert settings.resolve().backend.origin == ""
    monkeypatch.setenv("SKED_BACKEND", "consul://me:secret@host:8500")
    assert settings.resolve().backend.origin == "SKED_BACKEND=consul://***@host:8500"
    assert settings.resolve(backend="memory://x").backend.origin == "--backend memory://x"
    wrong = "consul://host:8500?token=secret&x=1"
    assert settings.resolve(backend=wrong).backend.origin == "--backend consul://host:8500?token=***"
    file = tmp_path / "x.toml"
    file.write_text('prefix = "p"')
    assert settings.resolve(config=str(file)).prefix.origin == f"{file}: prefix = p"


def test_all_keys_are_understood(tmp_path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(
        'backend = "memory://x"\nprefix = "p"\nhost = "h-1"\naddress = "10.0.0.1"\nstate_dir = "/var/lib/sked"\n'
        'allow_executors = ["bash"]\nallow_clusters = ["prod"]\nmax_tasks = 10\nlost_after = "90s"\n'
        'memory = "4g"\ncpu = 1.5\ndisk = "20g"\nport_range = "21000-21999"\n'
        '[tags]\nrack = "r1"\n'
    )
    found = settings.resolve(config=str(file)).file
    assert (found.host, found.address, found.max_tasks, found.lost_after) == ("h-1", "10.0.0.1", 10, "90s")
    assert (found.memory, found.cpu, found.disk, found.port_range) == ("4g", 1.5, "20g", "21000-21999")
    assert found.tags == {"rack": "r1"}
    assert (found.allow_executors, found.allow_clusters) == (["bash"], ["prod"])


def test_mistakes_are_reported_together_with_their_lines(tmp_path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('# settings\nbakend = "x"\nmax_tasks = "many"\n\n[tags]\nrack = 1\n')
    with pytest.raises(InvalidManifest) as caught:
        settings.resolve(config=str(file))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f'{file}:2:1: bakend: unknown field, did you mean "backend"?' in lines
    assert any(line.startswith(f"{file}:3:1: max_tasks: ") for line in lines)
    assert any(line.startswith(f"{file}:5:1: tags") for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend = ", ":1:"),
        ('lost_after = "soon"', "lost_after: expected a duration"),
        ('host = "../x"', "host: expected"),
        ("max_tasks = 0", "max_tasks"),
        ('memory = "much"', "memory: expected an amount"),
        ("cpu = 0", "cpu"),
        ("cpu = 1e-9", "cpu: expected a number of cores"),
        ("cpu = nan", "cpu"),
        ('disk = "-1g"', "disk: expected an amount"),
        ('port_range = "3-2"', "port_range: the first port comes after the last one"),
        ("a = 1\na = 2", ":2:"),
    ],
)
def test_a_bad_file_exits_3_and_names_the_place(sked, tmp_path, text, said) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    ran = sked("tasks", "--config", str(file))
    assert (ran.code, ran.out) == (3, "")
    assert str(file) in ran.err
    assert said in ran.err


def test_a_file_that_is_not_there_or_not_text_exits_3(sked, tmp_path) -> None:
    ran = sked("--config", str(tmp_path / "none.toml"), "tasks")
    assert ran.code == 3
    assert "No such file" in ran.err
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert sked("--config", str(tmp_path / "binary.toml"), "tasks").code == 3
    assert sked("--config", str(tmp_path), "tasks").code == 3
