"""Loading a plugin: for which API it is, what the operator lets be used, and what it may do meanwhile."""

from __future__ import annotations

import ast
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from rigs.small_plugins import HOOKIMPL, package
from sked_core.errors import PluginError
from sked_core.plugin import API_VERSION, hookimpl
from sked_core.runtime.plugins import loading as plugin_loading
from sked_core.runtime.plugins.loading import found
from sked_core.runtime.plugins.registry import PluginRow, Plugins
from sked_core.runtime.plugins.rules import PluginRules, Rule

ROOT = Path(__file__).resolve().parents[2]
LEFT_MARK = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
OFFERS = f"{HOOKIMPL}@hookimpl\ndef sked_schedulers():\n    return {{NAME: object}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are installed for the test; what it imports is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("sked_") and not name.startswith("sked_core"):
            del sys.modules[name]


def of(folder: Path, rules: PluginRules | None = None, deadline: float = 60) -> Plugins:
    """The plugins of ``folder`` alone."""
    here = [one for one in found() if str(one.dist.locate_file("")) == str(folder)]
    return Plugins(here, rules, deadline)


def row(plugins: Plugins, name: str) -> PluginRow:
    return next(row for row in plugins.rows() if row.name == name)


def offering(name: str) -> str:
    return OFFERS.replace("NAME", repr(name))


def of_object(plugin: object, **more: float) -> PluginRow:
    """The row of a plugin that needs no import."""
    point = SimpleNamespace(name="x", value="x", dist=None, load=lambda: plugin)
    return row(Plugins([point], **more), "x")


class TestApi:
    def test_a_plugin_for_another_major_is_a_row_and_is_not_imported(self, folder):
        mark = package(folder, "later", LEFT_MARK + offering("later"), groups=["sked.v2"], version="3.1")
        package(folder, "good", offering("good"))
        plugins = of(folder)
        found = row(plugins, "later")
        assert (found.api, found.state, found.provides) == ("2", "other-api", ())
        assert found.error == f"built for plugin API 2, this Sked has {API_VERSION}: pip install -U sked-core"
        assert not mark.with_suffix(".ran").exists()
        assert plugins.scheduler("good") and row(plugins, "good").state == "ok"

    def test_who_asks_for_what_it_would_offer_is_told_so(self, folder):
        package(folder, "later", offering("later"), groups=["sked.v2"])
        with pytest.raises(PluginError) as named:
            of(folder).scheduler("later")
        assert "sked-later 1.0 is installed but not imported: built for plugin API 2" in named.value.hint
        with pytest.raises(PluginError) as other:
            of(folder).scheduler("some")
        assert "not imported: sked-later 1.0 (built for plugin API 2" in other.value.hint

    @pytest.mark.parametrize("groups", [["sked", "sked.v2"], ["sked.v2", "sked", "sked.v3"], ["sked.v1"]])
    def test_one_that_is_for_this_major_too_is_used(self, folder, groups):
        package(folder, "both", offering("both"), groups=groups)
        plugins = of(folder)
        assert [one.name for one in plugins.rows()] == ["core", "both"]
        assert row(plugins, "both").state == "ok" and plugins.scheduler("both")

    @pytest.mark.parametrize("group", ["sked.v0", "sked.v02", "sked.vx", "sked.v2.1", "sked2", "sked.v99999999"])
    def test_a_group_that_is_no_major_is_somebody_elses(self, folder, group):
        package(folder, "odd", "raise RuntimeError", groups=[group])
        assert [one.name for one in of(folder).rows()] == ["core"]

    def test_one_for_an_older_major_is_to_be_upgraded_itself(self, folder, monkeypatch):
        monkeypatch.setattr(plugin_loading.hookspecs, "API_VERSION", "2.0")
        package(folder, "old", "raise RuntimeError")
        assert row(of(folder), "old").error == "built for plugin API 1, this Sked has 2.0: pip install -U sked-old"

    def test_a_name_that_this_api_lacks_is_explained_by_what_the_package_asks_for(self, folder):
        package(folder, "new", "from sked_core.plugin import Tomorrow", requires=["sked-core>=7.2", "click"])
        error = row(of(folder), "new").error
        assert "import: ImportError: cannot import name 'Tomorrow' from 'sked_core.plugin'" in error
        assert "sked-new asks for sked-core>=7.2, installed is" in error
        assert error.endswith("pip install -U sked-core sked-new")

    def test_and_by_the_version_of_the_api_where_it_asks_for_nothing(self, folder):
        package(folder, "new", "import sked_core.plugin as p\np.Tomorrow")
        error = row(of(folder), "new").error
        assert f"this Sked has plugin API {API_VERSION}, without that name: pip install -U sked-core sked-new" in error

    def test_a_failure_of_another_kind_is_not_explained_away(self, folder):
        package(folder, "torn", "import no_such_library", requires=["sked-core"])
        assert row(of(folder), "torn").error == "import: ModuleNotFoundError: No module named 'no_such_library'"


class TestRules:
    @pytest.mark.parametrize(
        ("rules", "state", "error"),
        [
            (PluginRules(), "ok", ""),
            (
                PluginRules(deny=Rule.of(["Sked_Toy"], "sked.toml: plugins.deny")),
                "denied",
                "denied by sked.toml: plugins.deny",
            ),
            (PluginRules(allow=Rule.of(["sked-other"], "X")), "denied", "not allowed by X"),
            (PluginRules(allow=Rule.of([], "X")), "denied", "not allowed by X"),
            (
                PluginRules(allow=Rule.of(["toy"], "X")),
                "denied",
                "not allowed by X, which names packages: this one is sked-toy",
            ),
            (PluginRules(allow=Rule.of(["sked.toy"], "X")), "ok", ""),
            (PluginRules(allow=Rule.of(["sked-toy"], "X"), deny=Rule.of(["sked-toy"], "Y")), "denied", "denied by Y"),
        ],
    )
    def test_what_may_not_be_used_is_listed_and_not_imported(self, folder, rules, state, error):
        mark = package(folder, "toy", LEFT_MARK + offering("toy"))
        plugins = of(folder, rules)
        assert (row(plugins, "toy").state, row(plugins, "toy").error) == (state, error)
        assert mark.with_suffix(".ran").exists() == (state == "ok")
        assert plugins.names("scheduler") == (("default", "toy") if state == "ok" else ("default",))
        assert plugins.lacking() == []

    def test_what_is_built_in_can_not_be_denied(self):
        plugins = Plugins([], PluginRules(allow=Rule.of([], "X"), deny=Rule.of(["sked-core"], "Y")))
        assert plugins.scheduler("default") and plugins.rows()[0].state == "ok"

    def test_required_ones_that_lack_are_told_with_the_reason(self, folder):
        package(folder, "good", offering("good"))
        package(folder, "torn", "raise RuntimeError('no luck')")
        package(folder, "later", "", groups=["sked.v2"])
        package(folder, "kept", "")
        names = ["sked-good", "Sked-Torn", "sked-later", "sked-gone", "sked-kept", "sked-core"]
        lines = of(folder, PluginRules(require=Rule.of(names, "R"), deny=Rule.of(["sked-kept"], "D"))).lacking()
        assert lines == [
            "sked-gone is required (R), but not installed, or no plugin: pip install sked-gone",
            "sked-kept is required (R), but denied: denied by D",
            "sked-later is required (R), but other-api: built for plugin API 2, this Sked has 1.0: "
            "pip install -U sked-core",
            "sked-torn is required (R), but broken: import: RuntimeError: no luck",
        ]

    def test_variables_say_them_and_pass_them_on(self, monkeypatch):
        monkeypatch.setenv("SKED_PLUGINS_DENY", "sked-toy, Sked_Other,")
        monkeypatch.setenv("SKED_PLUGINS_REQUIRE", "")
        rules = PluginRules.of_environment()
        assert rules == PluginRules(deny=Rule(frozenset({"sked-toy", "sked-other"}), "SKED_PLUGINS_DENY"))
        assert rules.environment() == {"SKED_PLUGINS_DENY": "sked-other,sked-toy"}
        for name, value in PluginRules(allow=Rule.of([], "X")).environment().items():
            monkeypatch.setenv(name, value)
        assert PluginRules.of_environment().refusal("sked-anything") == "not allowed by SKED_PLUGINS_ALLOW"

    def test_no_code_loads_plugins_without_the_rules_but_the_shadows_process(self):
        """Which is given them in its environment."""
        free = []
        for path in [*ROOT.glob("sked_core/**/*.py"), *ROOT.glob("plugins/*/sked_*/**/*.py")]:
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="Plugins"), attr="load"), args=[], keywords=[]):
                        free.append(path.name)
        assert free == ["shadow_process.py"]


class TestLoading:
    def test_one_that_hangs_is_given_up_and_the_next_is_loaded(self, folder):
        package(folder, "a", "import threading\nthreading.Event().wait(600)")
        package(folder, "b", f"{HOOKIMPL}import time\n@hookimpl\ndef sked_storage():\n    time.sleep(600)\n")
        package(folder, "c", offering("c"))
        plugins = of(folder, deadline=4)  # what does not hang takes milliseconds, or a second on a busy machine
        assert row(plugins, "a").error == "import took longer than 4 s"
        assert row(plugins, "b").error == "sked_storage took longer than 4 s"
        assert row(plugins, "a").seconds >= 4 and row(plugins, "a").state == "broken"
        assert row(plugins, "c").error == ""

    def test_what_spins_is_made_to_end(self, folder):
        package(folder, "spin", "while True:\n    pass")
        assert "took longer than" in row(of(folder, deadline=0.5), "spin").error
        for thread in threading.enumerate():
            if thread.name == "sked-plugin spin":
                thread.join(60)
                assert not thread.is_alive()

    def test_what_comes_after_the_deadline_does_not_count(self, folder):
        go = threading.Event()
        hooks = SimpleNamespace(sked_schedulers=hookimpl(lambda: go.wait(60) and {"late": object}))
        point = SimpleNamespace(name="x", value="x", dist=None, load=lambda: hooks)
        plugins = Plugins([point], deadline=0.2)
        threads = [one for one in threading.enumerate() if one.name == "sked-plugin x"]
        go.set()
        for thread in threads:
            thread.join(60)
        assert plugins.names("scheduler") == ("default",)
        assert row(plugins, "x").provides == ()

    def test_it_exits_and_only_its_thread_ends(self, folder):
        package(folder, "exits", "import sys\nsys.exit(7)")
        assert row(of(folder), "exits").error == "import: SystemExit: 7"

    def test_what_it_prints_gets_nowhere_and_is_told(self, folder, capfd):
        source = "import sys\nprint('hello\\x1b[2J')\nsys.stdout.buffer.write(b'bytes')\nassert not sys.stdin.read()"
        package(folder, "chatty", source + "\n" + offering("chatty"))
        before = sys.stdout, sys.stdin
        plugins = of(folder)
        assert capfd.readouterr().out == "" and (sys.stdout, sys.stdin) == before
        (warning,) = [one for one in row(plugins, "chatty").warnings if "prints" in one]
        assert warning == r"prints to standard output while it is loaded: 'hello\x1b[2J'"
        assert row(plugins, "chatty").state == "ok" and plugins.scheduler("chatty")

    def test_what_its_programs_and_c_code_print_goes_to_standard_error(self, folder, capfd):
        package(folder, "chatty", "import os, subprocess\nos.write(1, b'one\\n')\nsubprocess.run(['echo', 'two'])")
        assert row(of(folder), "chatty").error == ""
        assert capfd.readouterr() == ("", "one\ntwo\n")

    def test_a_stream_that_it_took_hold_of_leads_to_standard_error_later(self, folder, capfd):
        package(folder, "logs", "import sys\nheld = sys.stdout\n")
        of(folder)
        print("later", file=sys.modules["sked_logs"].held)
        assert capfd.readouterr() == ("", "later\n")

    def test_without_a_standard_output_plugins_load_too(self, folder, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        package(folder, "chatty", "print('hello')\n" + offering("chatty"))
        assert row(of(folder), "chatty").state == "ok"

    def test_how_long_it_took_is_told_and_warned_of(self, folder):
        package(folder, "slow", "import time\ntime.sleep(1.1)")
        found = row(of(folder), "slow")
        assert found.seconds >= 1.1 and found.state == "ok"
        assert f"took {found.seconds:.1f} s to import: whatever needs any plugin waits for it" in found.warnings

    def test_threads_that_it_leaves_are_counted(self, folder):
        source = "import threading\nend = threading.Event()\n"
        package(
            folder,
            "leaks",
            source + "for _ in range(3):\n    threading.Thread(target=end.wait, daemon=_ < 2).start()\n",
        )
        assert "leaves 3 threads running once it is loaded" in row(of(folder), "leaks").warnings
        assert len([one for one in plugin_loading.leaked if one.is_alive()]) == 1
        sys.modules["sked_leaks"].end.set()

    def test_what_the_whole_process_has_one_of_is_put_back_and_told(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(plugin_loading, "SLOW_SECONDS", 60.0)  # of a busy machine nothing is told
        mask, depth = os.umask(0o027), sys.getrecursionlimit()
        try:
            package(folder, "moves", "import os, sys\nos.chdir('/')\nos.umask(0)\nsys.setrecursionlimit(900)\n")
            package(folder, "stays", "import os\nos.chdir(os.getcwd())\n")
            plugins = of(folder)
            assert (Path.cwd(), os.umask(0o027), sys.getrecursionlimit()) == (folder, 0o027, depth)
        finally:
            os.umask(mask)
            sys.setrecursionlimit(depth)
        told = "changes the {} of the process while it is loaded: put back"
        assert row(plugins, "moves").warnings == tuple(
            told.format(what) for what in ("recursion limit", "umask", "working directory")
        )
        assert row(plugins, "stays").warnings == ()

    def test_two_loads_at_once_leave_standard_output_as_it_was(self, folder):
        package(folder, "chatty", "print('hello')\n")
        before = sys.stdout
        threads = [threading.Thread(target=of, args=(folder,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sys.stdout is before


class Evil(str):
    def __hash__(self) -> int:
        raise RuntimeError("no")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (lambda: {"": object}, "'' is not a name with a factory"),
            (lambda: {"a b": object}, "'a b' is not a name"),
            (lambda: {"a\n\x1b[2J": object}, r"'a\n\x1b[2J' is not a name"),
            (lambda: {"../x": object}, "'../x' is not a name"),
            (lambda: {"docker.evil:Cls": object}, "'docker.evil:Cls' is not a name"),
            (lambda: {"x" * 101: object}, "is not a name"),
            (lambda: {None: object}, "a NoneType is not a name"),
            (lambda: {("a",): object}, "a tuple is not a name"),
            (lambda: {"a": "not callable"}, "'a' is not a name with a factory"),
            (lambda: {f"n{i}": object for i in range(2000)}, "gives more than 1000 names"),
            (lambda: "default", "sked_schedulers returned str, not a mapping"),
            (lambda: 7, "sked_schedulers returned int, not a mapping"),
            (lambda: iter(()), "not a mapping"),
            (lambda: {Evil("a"): object}, "sked_schedulers: RuntimeError: no"),
            (lambda: (_ for _ in ()).throw(Unprintable()), "sked_schedulers: Unprintable"),
            (lambda: (_ for _ in ()).throw(GeneratorExit()), "sked_schedulers: GeneratorExit"),
        ],
    )
    def test_nonsense_is_told_and_nothing_of_it_is_offered(self, answer, error):
        def sked_schedulers():
            return answer()

        found = of_object(SimpleNamespace(sked_schedulers=hookimpl(sked_schedulers)))
        assert error in found.error and found.state == "broken"
        assert len(found.provides) in (0, 1000)
        assert "\x1b" not in found.error and "\n" not in found.error

    @pytest.mark.parametrize("name", ["default", "a"])
    def test_what_is_built_in_keeps_its_name_and_the_row_says_so(self, name):
        own = Plugins([]).scheduler("default")

        def sked_schedulers():
            return {"default": lambda: "mine", "a": lambda: "a"}

        point = SimpleNamespace(
            name="taker", value="x", dist=None, load=lambda: SimpleNamespace(sked_schedulers=hookimpl(sked_schedulers))
        )
        plugins = Plugins([point])
        assert type(plugins.scheduler("default")()) is type(own())
        assert plugins.scheduler("a")() == "a"
        assert row(plugins, "taker").error == "scheduler default is built in: this one is not used"
        assert row(plugins, "core").error == ""
        assert plugins.names("scheduler") == ("a", "default")

    def test_a_hook_that_wraps_others_wraps_nothing_but_its_own(self):
        def sked_schedulers():
            yield
            return "nonsense"

        found = of_object(SimpleNamespace(sked_schedulers=hookimpl(wrapper=True)(sked_schedulers)))
        assert found.state == "broken" and found.provides == ()
