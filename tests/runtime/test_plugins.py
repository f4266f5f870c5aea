"""Plugins of every kind of broken: each is an error row, and everything else works."""

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from sked_core.errors import InvalidValue, PluginError
from sked_core.interfaces.executor import ExecutorContext
from sked_core.plugin import Event, HealthContext, Put, SystemClock, hookimpl
from sked_core.runtime.health.probes import ProbeHealth
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.backend import default_url, open_store, scheme_of
from sked_core.runtime.plugins.registry import Plugins


class EntryPoint:
    """Stands for an installed entry point: ``load`` gives the plugin, or raises."""

    def __init__(self, name, plugin=None, *, package=None, error=None):
        self.name, self.value = name, f"{name}_module.plugin"
        self.dist = SimpleNamespace(metadata={"Name": package or f"pkg-{name}", "Version": "1.2"})
        self._plugin, self._error = plugin, error

    def load(self):
        if self._error is not None:
            raise self._error
        return self._plugin


def offering(**hooks):
    """A plugin object whose hooks return (or, for an exception, raise) what is given."""

    def make(name, answer):
        def hook():
            if isinstance(answer, BaseException):
                raise answer
            return answer

        hook.__name__ = name
        return hookimpl(hook)

    return SimpleNamespace(**{name: make(name, answer) for name, answer in hooks.items()})


GOOD = EntryPoint("good", offering(sked_executors={"fine": lambda context: "an executor"}))
CONTEXT = ExecutorContext(host="", store_uid="", state_dir=Path("x"))


def row(plugins, name):
    return next(row for row in plugins.rows() if row.name == name)


def test_the_built_in_plugin_offers_the_default_scheduler_two_stores_and_probes():
    plugins = Plugins([])
    (core,) = plugins.rows()
    secrets = ("secrets environment", "secrets file")
    assert core.provides == ("health probes", "scheduler default", *secrets, "storage memory", "storage sqlite")
    assert core.error == ""
    assert hasattr(plugins.scheduler("default")(), "place")


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (EntryPoint("bad", error=ImportError("No module named 'docker'")), "import: ImportError: No module named"),
        (EntryPoint("bad", error=SyntaxError("invalid syntax")), "import: SyntaxError"),
        (EntryPoint("bad", error=SystemExit(3)), "import: SystemExit: 3"),
        (EntryPoint("bad", None), "import: the entry point gives None"),
        (EntryPoint("bad", offering(sked_executors=RuntimeError("boom"))), "sked_executors: RuntimeError: boom"),
        (EntryPoint("bad", offering(sked_executors=SystemExit(1))), "sked_executors: SystemExit: 1"),
        (EntryPoint("bad", offering(sked_executors=None)), "sked_executors returned NoneType, not a mapping"),
        (EntryPoint("bad", offering(sked_executors=["fine"])), "sked_executors returned list, not a mapping"),
        (EntryPoint("bad", offering(sked_executors={"x": None})), "'x' is not a name with a factory"),
        (EntryPoint("bad", offering(sked_executors={7: print})), "7 is not a name with a factory"),
        (
            EntryPoint("bad", offering(sked_executor={"x": print})),
            'sked_executor is no hook, did you mean "sked_executors"?',
        ),
        (EntryPoint("bad", error=RuntimeError("\x1b[2J")), r"RuntimeError: \x1b[2J"),
    ],
)
def test_a_broken_plugin_is_an_error_row_and_the_others_work(broken, error):
    plugins = Plugins([broken, GOOD])
    assert error in row(plugins, "bad").error
    assert row(plugins, "bad").package == "pkg-bad"
    assert row(plugins, "good").error == ""
    assert plugins.executor("fine")(CONTEXT) == "an executor"


def test_a_hook_with_arguments_that_core_does_not_give_is_an_error_row():
    plugin = SimpleNamespace(sked_schedulers=hookimpl(lambda colour: {}), sked_event=hookimpl(lambda evnt: None))
    found = row(Plugins([EntryPoint("bad", plugin)]), "bad").error
    assert "sked_schedulers asks for `colour`: it is given nothing" in found
    assert 'sked_event asks for `evnt`, did you mean "event"?' in found


def _generator(**marks):
    def generator(event):
        yield event

    return hookimpl(generator, **marks)


async def _coroutine(event): ...


@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ({"sked_event": hookimpl(_coroutine)}, "sked_event is `async def`, and nobody awaits it"),
        ({"sked_event": _generator()}, "sked_event has a `yield`, so that nothing of it is run"),
        ({"sked_executors": hookimpl(lambda *, color: {})}, "sked_executors asks for `color`"),
        ({"sked_executors": dict}, "sked_executors has no @hookimpl"),
        ({"sked_events": _generator()}, 'sked_events is no hook, did you mean "sked_event"?'),
        ({"mine": hookimpl(lambda: {}, specname="sked_store")}, 'sked_store is no hook, did you mean "sked_storage"?'),
        ({"sked_dreams": _generator(optionalhook=True)}, ""),
        ({"mine": hookimpl(lambda: {}, specname="sked_storage")}, ""),
        ({"sked_executors": hookimpl(lambda *args, color="red", **more: {"x": print})}, ""),
        ({"sked_event": _generator(wrapper=True)}, ""),
    ],
)
def test_a_hook_that_would_never_be_called_is_told_and_the_others_are_used(hooks, told):
    found = Plugins([EntryPoint("mixed", SimpleNamespace(sked_secrets=hookimpl(lambda: {"vault": print}), **hooks))])
    assert told in row(found, "mixed").error and bool(told) == bool(row(found, "mixed").error)
    assert "secrets vault" in row(found, "mixed").provides


def test_one_bad_hook_leaves_the_other_hooks_of_the_plugin_alone():
    mixed = offering(sked_executors=RuntimeError("boom"), sked_schedulers={"mine": lambda: "a scheduler"})
    plugins = Plugins([EntryPoint("mixed", mixed)])
    assert plugins.scheduler("mine")() == "a scheduler"
    assert row(plugins, "mixed").provides == ("scheduler mine",)


def test_ctrl_c_while_plugins_load_is_not_swallowed():
    """A real one, which comes to the main thread; what a plugin raises by that name is a fault like any other."""
    script = (
        "import _thread, threading\n"
        "from sked_core.runtime.plugins.registry import Plugins\n"
        "class Slow:\n"
        "    name, value, dist = 'slow', 'slow', None\n"
        "    def load(self):\n"
        "        _thread.interrupt_main()\n"
        "        threading.Event().wait(600)\n"
        "try:\n"
        "    Plugins([Slow()], deadline=60)\n"
        "except KeyboardInterrupt:\n"
        "    print('passed on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "passed on\n"
    assert "import: KeyboardInterrupt" in row(Plugins([EntryPoint("bad", error=KeyboardInterrupt())]), "bad").error


def test_two_plugins_that_claim_one_name_are_both_named_and_only_that_name_fails():
    one = EntryPoint("one", offering(sked_executors={"x": print, "only-one": lambda context: 1}))
    two = EntryPoint("two", offering(sked_executors={"x": print}))
    plugins = Plugins([one, two])
    with pytest.raises(PluginError, match=r"executor x is offered by pkg-one 1\.2 and by pkg-two 1\.2"):
        plugins.executor("x")
    assert plugins.executor("only-one")(CONTEXT) == 1
    assert plugins.names("executor") == ("only-one",)
    for name in ("one", "two"):
        assert "executor x is offered by pkg-one 1.2 and by pkg-two 1.2" in row(plugins, name).error


@pytest.mark.parametrize(
    ("ask", "name", "hint"),
    [
        ("executor", "docker", "pip install sked-docker"),
        ("executor", "bash", "pip install sked-bash"),
        ("scheduler", "binpack", "pip install sked-binpack"),
        ("storage", "consul", "pip install sked-consul"),
        ("storage", "etcd", "pip install sked-etcd"),
        ("executor", "podman", "pip install the package that offers it"),
    ],
)
def test_a_name_that_nobody_offers_ends_in_the_pip_install_that_would_help(ask, name, hint):
    with pytest.raises(PluginError, match=f'no {ask} "{name}" is installed') as caught:
        getattr(Plugins([]), ask)(name)
    assert hint in caught.value.hint


def test_the_hint_for_a_name_whose_package_is_broken_says_so():
    broken = EntryPoint("docker", error=ImportError("No module named 'docker'"), package="sked-docker")
    with pytest.raises(PluginError) as caught:
        Plugins([broken]).executor("docker")
    assert caught.value.hint == (
        "sked-docker 1.2 is installed but broken: import: ImportError: No module named 'docker'"
    )


def test_a_factory_that_fails_is_an_error_of_its_plugin():
    def factory(context):
        raise ValueError("no engine")

    plugins = Plugins([EntryPoint("x", offering(sked_executors={"x": factory}))])
    with pytest.raises(PluginError, match=r"executor x of pkg-x 1\.2 failed: ValueError: no engine"):
        plugins.executor("x")(CONTEXT)
    with pytest.raises(PluginError, match=r"executor x of pkg-x 1\.2 failed: ValueError: no engine"):
        spec_checkers(plugins)["x"].validate({})


def test_a_store_without_a_health_provider_of_its_own_gets_the_probes():
    own = EntryPoint("c", offering(sked_health={"consul": lambda context: "consul's own"}))
    plugins = Plugins([own])
    assert plugins.health("consul")(None) == "consul's own"
    store = open_store("memory://", plugins)
    probes = plugins.health("memory")(HealthContext(store=store, url="memory://", host="", clock=SystemClock()))
    assert isinstance(probes, ProbeHealth)
    probes.close()
    store.close()


def commands(add):
    return SimpleNamespace(sked_commands=hookimpl(add))


def test_commands_are_added_and_one_that_replaces_another_is_refused():
    @click.group()
    def cli():
        """The command line."""

    @cli.command()
    def apply():
        """The real one."""

    real = cli.commands["apply"]

    def add(cli):
        cli.add_command(click.Command("hello"))
        cli.add_command(click.Command("apply"))

    def fail(cli):
        raise RuntimeError("boom")

    plugins = Plugins([EntryPoint("adds", commands(add)), EntryPoint("fails", commands(fail))])
    plugins.add_commands(cli)
    assert set(cli.commands) == {"apply", "hello"}
    assert cli.commands["apply"] is real
    assert row(plugins, "adds").error == "command apply exists already"
    assert "sked_commands: RuntimeError: boom" in row(plugins, "fails").error


def test_every_plugin_is_told_events_whatever_the_others_do(caplog):
    event = Event(at="2026-01-01T00:00:00Z", who="s1", what="task.issued", subject="task/web-1-0")
    told = []

    def fail(event):
        raise SystemExit(f"no {event.what}")

    def listening(hook):
        return SimpleNamespace(sked_event=hookimpl(hook))

    points = [EntryPoint("a", listening(fail)), EntryPoint("b", listening(lambda event: told.append(event))), GOOD]
    plugins = Plugins([*points, EntryPoint("c", listening(lambda: told.append("no arguments")))])
    for _ in range(3):
        plugins.observe(event)
    assert [one for one in told if one != "no arguments"] == [event] * 3
    assert told.count("no arguments") == 3
    assert [record.getMessage() for record in caplog.records] == [
        "sked_event of plugin pkg-a 1.2 failed: SystemExit: no task.issued (further failures are not logged)"
    ]
    assert row(plugins, "a").error == ""


def test_real_packages_are_found_by_their_entry_points_the_broken_one_too(tmp_path):
    for name, body in {
        "alpha": """
            from sked_core.plugin import HealthContext, Put, SystemClock, hookimpl
            @hookimpl
            def sked_schedulers():
                return {"alpha": object}
            """,
        "omega": "raise ImportError('omega needs a library that is not there')",
    }.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(body))
        info = tmp_path / f"{name}_pkg-3.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-pkg\nVersion: 3.0\n")
        (info / "entry_points.txt").write_text(f"[sked]\n{name} = {name}\n")
    script = (
        "from sked_core.runtime.plugins.registry import Plugins\n"
        "rows = [r for r in Plugins.load().rows() if r.version == '3.0']\n"
        "print([(r.name, r.package, r.provides, r.error) for r in rows])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{tmp_path}:{root}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "('alpha', 'alpha-pkg', ('scheduler alpha',), '')" in done.stdout
    assert "('omega', 'omega-pkg', (), 'import: ImportError: omega needs a library that is not there')" in done.stdout


def test_the_default_store_is_a_file_in_the_state_folder(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_url() == "sqlite:///var/state/sked/sked.db"
    monkeypatch.setenv("XDG_STATE_HOME", "/odd #1 %")
    assert default_url() == "sqlite:///odd%20%231%20%25/sked/sked.db"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        monkeypatch.setenv("HOME", "/home/someone")
        assert default_url() == "sqlite:///home/someone/.local/state/sked/sked.db"


@pytest.mark.parametrize("url", ["", "consul", "127.0.0.1:8500", "://x", "\x1b://x"])
def test_what_is_not_the_url_of_a_store_is_refused(url):
    with pytest.raises(InvalidValue, match="is not the URL of a store") as caught:
        scheme_of(url)
    assert "\x1b" not in str(caught.value)


def test_a_scheme_that_no_plugin_knows_ends_in_the_pip_install():
    with pytest.raises(PluginError, match='no storage "etcd" is installed') as caught:
        open_store("etcd://127.0.0.1:2379", Plugins([]))
    assert "pip install sked-etcd" in caught.value.hint


def test_a_plugin_store_is_opened_with_its_whole_url():
    urls = []
    plugins = Plugins([EntryPoint("s", offering(sked_storage={"paper": lambda url: urls.append(url) or a_store()}))])
    open_store("paper://desk/1", plugins)
    assert urls == ["paper://desk/1"]


@pytest.mark.parametrize("given", [None, "a store", object()])
def test_a_plugin_that_gives_no_store_is_named_before_anything_is_done_with_it(given):
    plugins = Plugins([EntryPoint("s", offering(sked_storage={"paper": lambda url: given}), package="sked-paper 2")])
    with pytest.raises(PluginError, match=r"storage paper of .* which has no read, commit, wait, grant, close"):
        open_store("paper://desk/1", plugins)


def a_store():
    return SimpleNamespace(**dict.fromkeys(("read", "commit", "wait", "grant", "close"), lambda *_: None))


def test_the_embedded_store_is_opened_with_a_prefix_that_others_see(tmp_path):
    plugins = Plugins([])
    url = f"sqlite://{tmp_path}/new folder/sked.db"
    inside, outside = open_store(url, plugins, prefix="team-a"), open_store(url, plugins)
    inside.commit([Put("config/hosts/h", b"1")])
    assert list(outside.read("").entries) == ["team-a/config/hosts/h"]
    assert list(inside.read("").entries) == ["config/hosts/h"]
    inside.close()
    outside.close()


def test_the_memory_store_is_opened():
    store = open_store("memory://", Plugins([]))
    store.commit([Put("a", b"1")])
    assert store.read("").entries["a"].value == b"1"
    store.close()
