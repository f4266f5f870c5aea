"""The hooks of one plugin, each looked at by itself: what is wrong with one is said so that its author can mend it, and
the others are used all the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pluggy

from sked_core.interfaces import hookspecs
from sked_core.model.spec import did_you_mean

GROUP = "sked"
SPECS: dict[str, Callable[..., Any]] = {
    name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{GROUP}_spec")
}


def hooks_of(plugin: Any) -> tuple[pluggy.HookRelay, list[str]]:
    """The hooks of a module or another object, and what is wrong with those that are left out. Raises whatever looking
    at its attributes raises."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    good, wrong = {}, []
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        marks = getattr(function, f"{GROUP}_impl", None) if inspect.isroutine(function) else None
        if not isinstance(marks, dict):
            if name in SPECS and function is not None and not hasattr(function, f"{GROUP}_spec"):
                wrong.append(f"{name} has no @hookimpl: nobody calls it")
        elif not (why := "; ".join(_mistakes(marks.get("specname") or name, function, marks))):
            good[name] = function
        elif not (marks.get("optionalhook") and name not in SPECS):
            wrong.append(why)
    manager.register(SimpleNamespace(**good))
    return manager.hook, wrong


def _mistakes(hook: str, function: Any, marks: dict[str, Any]) -> Iterator[str]:
    if hook not in SPECS:
        yield f"{hook} is no hook{did_you_mean(hook, SPECS)}"
        return
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield f"{hook} is `async def`, and nobody awaits it: make it `def`"
    wraps = marks.get("wrapper") or marks.get("hookwrapper")
    if inspect.isgeneratorfunction(function) and not wraps and hook != "sked_samples":  # which may be iterated
        yield f"{hook} has a `yield`, so that nothing of it is run: make it return what it gives"
    given = list(inspect.signature(SPECS[hook]).parameters)
    for one in inspect.signature(function).parameters.values():
        named = one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if named and one.default is one.empty and (one.name not in given or one.kind is one.KEYWORD_ONLY):
            said = did_you_mean(one.name, given) or f": it is given {', '.join(given) or 'nothing'}"
            yield f"{hook} asks for `{one.name}`{said}"
