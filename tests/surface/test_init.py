"""``sked init``: a manifest that works with what is installed here, and that overwrites nothing."""

from __future__ import annotations

import pytest

from sked_core.client.acting.starting import hello
from sked_core.errors import PluginError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["bash", "docker"])
def test_what_it_writes_is_valid_for_each_executor(sked, url, here, kind):
    ran = sked("init", "--executor", kind)
    assert (ran.code, ran.out) == (0, "")
    assert "written: hello.yml" in ran.err
    assert f"type: {kind}" in (here / "hello.yml").read_text()
    assert sked("validate", "-f", "hello.yml").code == 0
    assert sked("apply", "-f", "hello.yml").code == 0
    assert "helloworld" in sked("services").out


def test_a_file_that_is_there_is_left_alone(sked, here):
    (here / "web.yml").write_text("mine")
    ran = sked("init", "web.yml")
    assert (ran.code, ran.out, (here / "web.yml").read_text()) == (5, "", "mine")
    assert "web.yml is there already" in ran.err
    (here / "link.yml").symlink_to(here / "nowhere")
    assert sked("init", "link.yml").code == 5
    assert not (here / "nowhere").exists()


def test_to_standard_output_it_can_be_applied_at_once(sked, url, here):
    text = sked("init", "-").out
    assert text.startswith("# Hello, world.")
    assert sked("apply", "-f", "-", stdin=text).code == 0
    assert not list(here.glob("*.yml"))


def test_a_name_that_a_shell_would_take_apart_is_quoted(sked, here):
    assert "sked apply -f 'my web.yml' --wait" in sked("init", "my web.yml").err
    assert "sked apply -f 'my web.yml'" in (here / "my web.yml").read_text()


def test_of_several_executors_the_one_that_needs_least_is_taken():
    assert "type: bash" in hello(["docker", "other", "bash"])
    assert "type: docker" in hello(["docker", "other"])


@pytest.mark.parametrize(("installed", "kind"), [((), ""), (("other",), ""), (("bash",), "docker"), (("bash",), "x")])
def test_without_an_executor_that_it_knows_it_says_what_to_install(installed, kind):
    with pytest.raises(PluginError) as raised:
        hello(installed, kind)
    assert raised.value.hint


def test_a_folder_that_is_not_there_is_named(sked):
    ran = sked("init", "no/such/hello.yml")
    assert (ran.code, "no/such/hello.yml" in ran.err) == (1, True)
