"""Imports a plugin and asks it what it offers, whatever it does meanwhile: raises, exits, hangs, prints, or worse.

All of it happens in a thread of its own with a deadline, and with standard output and input put aside: what a plugin
prints would get into what programs read, and what it reads is not meant for it. Every plugin gets a pluggy manager of
its own, so that what one of them does wrong at registration or in a hook can't reach another (pluggy's plain loader
stops at the first that fails).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from typing import TYPE_CHECKING, Any

from sked_core.interfaces import hookspecs
from sked_core.model.spec import plain
from sked_core.runtime.plugins.hooks import GROUP, hooks_of
from sked_core.runtime.plugins.rules import PluginRules
from sked_core.strangers import end

if TYPE_CHECKING:
    import pluggy

DEADLINE_SECONDS = 10.0
"""How long one plugin may take to load. It usually is a few milliseconds."""
SLOW_SECONDS = 1.0
"""What takes longer than this is told of: every command that needs any plugin waits for all of them."""
MAX_OFFERED = 1000
"""Names that one hook may give."""
OK, BROKEN, DENIED, OTHER_API = "ok", "broken", "denied", "other-api"
HOOKS = {
    "executor": "sked_executors",
    "scheduler": "sked_schedulers",
    "storage": "sked_storage",
    "health": "sked_health",
    "secrets": "sked_secrets",
}
"""The hooks that are asked for names, by the kind of what they offer."""
_GROUPS = re.compile(rf"{GROUP}(?:\.v([1-9][0-9]{{0,3}}))?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_aside = threading.Lock()
leaked: list[threading.Thread] = []
"""Threads that plugins started while they were loaded, and that Python would wait for at the end of a command."""
Factory = Callable[..., Any]


@dataclass(slots=True)
class Plugin:
    """One entry point. ``module``: where its hooks are; ``api``: the majors that it is for; ``refused``: why it was not
    imported, and then the state says that in a word; ``doing``: what of it runs, while it is loaded."""

    name: str
    package: str
    version: str
    module: str = ""
    api: tuple[str, ...] = (hookspecs.API_VERSION.partition(".")[0],)
    hooks: pluggy.HookRelay | None = None
    offers: dict[tuple[str, str], Factory] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    refused: str = ""
    state: str = OK
    doing: str = "import"
    deaf: bool = False
    """Failed to take in an event, which was logged."""

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()

    def hook_names(self) -> tuple[str, ...]:
        """The hooks that it has."""
        callers = vars(self.hooks) if self.hooks else {}
        return tuple(sorted(name for name in callers if not name.startswith("_") and callers[name].get_hookimpls()))

    def attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """The result of ``action``, code of the plugin; if it fails in any way, None and one more error.

        SystemExit is no reason to end either: only Ctrl-C passes.
        """
        try:
            return action()
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise
            self.errors.append(f"{what}: KeyboardInterrupt")
        except BaseException as error:  # noqa: BLE001  whatever a stranger's code raises is the stranger's problem
            self.errors.append(plain(f"{what}: {described(error)}"))
        return None


def found() -> list[EntryPoint]:
    """The entry points of plugins for any major, of everything that is installed."""
    points = entry_points()
    return [one for group in points.groups if _GROUPS.fullmatch(group) for one in points.select(group=group)]


def loaded(points: list[EntryPoint], rules: PluginRules, deadline: float = DEADLINE_SECONDS) -> Iterator[Plugin]:
    """Each plugin, imported unless the rules or its API forbid that. ``points`` that have the name and the package in
    common are one plugin, made for several majors."""
    majors: dict[tuple[str, str], dict[str, tuple[EntryPoint, str]]] = {}
    for point in points:
        group = _GROUPS.fullmatch(getattr(point, "group", GROUP))
        major = (group and group[1]) or "1"
        package, version = _origin(point)
        majors.setdefault((point.name, package), {}).setdefault(major, (point, version))
    ours = hookspecs.API_VERSION.partition(".")[0]
    for (_, package), by_major in sorted(majors.items(), key=lambda one: one[0]):
        point, version = by_major.get(ours) or next(iter(by_major.values()))
        plugin = Plugin(
            plain(point.name), plain(package), plain(version), plain(point.value), tuple(sorted(by_major, key=int))
        )
        if refused := rules.refusal(package, point.name):
            plugin.state, plugin.refused = DENIED, refused
        elif ours not in by_major:
            newer = int(max(by_major, key=int)) > int(ours)
            upgrade = "sked-core" if newer else plugin.package
            what = f"built for plugin API {' and '.join(plugin.api)}, this Sked has {hookspecs.API_VERSION}"
            plugin.state, plugin.refused = OTHER_API, f"{what}: pip install -U {upgrade}"
        else:
            plugin = load(plugin, point.load, deadline)
        yield plugin


def load(plugin: Plugin, action: Callable[[], Any], deadline: float = DEADLINE_SECONDS) -> Plugin:
    """``plugin`` with all that the module which ``action`` gives offers, or with what went wrong. Takes no longer than
    ``deadline`` seconds: what hangs is left alone in its thread, and nothing that it does later counts."""
    attempted = replace(plugin, offers={}, errors=[], warnings=[])
    begin = time.monotonic()
    hangs, told = watched(plugin.name, lambda: _register(attempted, action), deadline)
    if hangs:
        attempted = replace(plugin, errors=[f"{attempted.doing} took longer than {deadline:g} s"], warnings=[])
    attempted.seconds = time.monotonic() - begin
    if attempted.seconds >= SLOW_SECONDS and not hangs:
        attempted.warnings.append(f"took {attempted.seconds:.1f} s to import: whatever needs any plugin waits for it")
    attempted.warnings += told
    return attempted


def watched(name: str, action: Callable[[], object], deadline: float) -> tuple[bool, list[str]]:
    """Call ``action`` of plugin ``name``, which must not raise, in a thread: whether it hangs, and what else is odd of
    it: that it printed something, changed what the whole process has one of, or left threads running."""
    before = set(threading.enumerate())
    changed: list[str] = []
    with _aside, _put_back(changed), _put_aside() as printed:
        thread = threading.Thread(target=action, name=f"sked-plugin {name}", daemon=True)
        thread.start()
        thread.join(deadline)
        hangs = thread.is_alive()
    if hangs:
        end(thread)
    told = [f"changes the {one} of the process while it is loaded: put back" for one in changed]
    if text := printed():
        told.append(plain(f"prints to standard output while it is loaded: {text!r}"))
    if left := [one for one in threading.enumerate() if one not in before and one is not thread]:
        leaked.extend(one for one in left if not one.daemon)
        told.append(f"leaves {len(left)} thread{'s' if len(left) > 1 else ''} running once it is loaded")
    return hangs, told


def register(plugin: Plugin, module: Any) -> None:
    """Ask each hook of ``module`` what it offers; every failure becomes an error of the plugin."""
    plugin.doing = "registering its hooks"
    if (found := plugin.attempt("hooks", lambda: hooks_of(module))) is None:
        return
    plugin.hooks, wrong = found
    plugin.errors += map(plain, wrong)
    for kind, hook in HOOKS.items():
        caller = getattr(plugin.hooks, hook)
        if caller.get_hookimpls():
            plugin.doing = hook
            plugin.attempt(hook, lambda caller=caller, kind=kind: _collect(plugin, kind, caller()))  # type: ignore[misc]


def described(error: BaseException) -> str:
    """What was raised, for people, in one line; an error that can't even be printed is told of by its class."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  it is a stranger's too
        text = ""
    return f"{type(error).__name__}: {text}"[:300].rstrip(": ")


def _register(plugin: Plugin, action: Callable[[], Any]) -> None:
    module = plugin.attempt("import", action)
    if module is not None:
        register(plugin, module)
    elif not plugin.errors:
        plugin.errors.append("import: the entry point gives None")
    if plugin.errors:
        from sked_core.runtime.plugins.requirements import advice

        if help_ := advice(plugin.package, "; ".join(plugin.errors)):
            plugin.errors.append(plain(help_))


def _collect(plugin: Plugin, kind: str, answers: list[Any]) -> None:
    hook = HOOKS[kind]
    # pluggy drops an answer of None, so that an empty list is a hook that returned nothing.
    for answer in answers or [None]:
        if not isinstance(answer, Mapping):
            plugin.errors.append(f"{hook} returned {type(answer).__name__}, not a mapping from name to factory")
            continue
        for name, factory in islice(answer.items(), MAX_OFFERED):
            if type(name) is str and _NAME.fullmatch(name) and callable(factory):
                plugin.offers[kind, name] = factory
            else:
                plugin.errors.append(plain(f"{hook}: {_shown(name)} is not a name with a factory"))
        if len(answer) > MAX_OFFERED:
            plugin.errors.append(f"{hook} gives more than {MAX_OFFERED} names")


def _shown(name: object) -> str:
    return f"{name!r:.80}" if type(name) in (str, int, bytes) else f"a {type(name).__name__}"


class _Printed(io.RawIOBase):
    """Keeps the begin of what is written while ``open``; what still holds it later writes to standard error instead."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.open = b"", True

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        given = bytes(data)
        if not self.open:
            with contextlib.suppress(OSError):
                os.write(2, given)
        elif len(self.kept) < 200:
            self.kept += given[:200]
        return len(given)


@contextlib.contextmanager
def _put_aside() -> Iterator[Callable[[], str]]:
    """Within the block standard output is kept as far as Python writes it, and goes to standard error otherwise; there
    is no standard input. Yields what tells the first line that was kept."""
    sink = _Printed()
    before = sys.stdout, sys.stdin
    saved = -1
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    with open(os.devnull) as nothing:  # noqa: PTH123 - cheaper than a Path
        sys.stdout, sys.stdin = io.TextIOWrapper(sink, encoding="utf-8", errors="replace", write_through=True), nothing
        try:
            yield lambda: sink.kept.decode(errors="replace").strip().partition("\n")[0]
        finally:
            sys.stdout, sys.stdin = before
            sink.open = False
            if saved >= 0:
                os.dup2(saved, 1)
                os.close(saved)


@contextlib.contextmanager
def _put_back(changed: list[str]) -> Iterator[None]:
    """Undo what is done within the block to the folder that relative paths begin at, the umask, and how deep calls may
    go; ``changed`` is given what of it was."""
    folder = -1
    with contextlib.suppress(OSError):  # a folder that is gone, or may not be read
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    mask, depth = _umask(), sys.getrecursionlimit()
    try:
        yield
    finally:
        if sys.getrecursionlimit() != depth:
            sys.setrecursionlimit(depth)
            changed.append("recursion limit")
        if _umask() != mask:
            os.umask(mask)
            changed.append("umask")
        if folder >= 0:
            with contextlib.suppress(OSError):
                if not _is_here(folder):
                    os.fchdir(folder)
                    changed.append("working directory")
            os.close(folder)


def _umask() -> int:
    """The one that there is: asking means setting, for a moment to one that opens nothing to others."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_here(folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), os.stat("."))  # noqa: PTH116
    except OSError:
        return False


def _origin(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point came from; metadata of others may be damaged."""
    dist = getattr(point, "dist", None)
    try:
        if dist is None:
            return point.value.partition(".")[0], ""
        said = dist.metadata  # read from the file each time: every command would wait for it
        return str(said["Name"]), str(said["Version"])
    except Exception:  # noqa: BLE001  a package without readable metadata still has a plugin to report on
        return point.value.partition(".")[0], ""
