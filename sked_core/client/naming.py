"""Names as people type them: whole, or as much of them as is unique; and what may have been meant instead.

What destroys something takes whole names only (``model.spec.known`` says what else there is).
"""

from __future__ import annotations

from collections.abc import Collection

from sked_core.client.notices import notice
from sked_core.errors import InvalidValue, NotFound, SkedError
from sked_core.interfaces.store import Store, read_keys
from sked_core.model import keys
from sked_core.model.spec import did_you_mean, known, nearest, plain
from sked_core.model.wording import natural

MAX_CANDIDATES = 8
PREFIXES = {
    "task": keys.TASKS,
    "service": keys.SERVICES,
    "host": keys.HOSTS,
    "cluster": keys.CLUSTERS,
    "task_definition": keys.TASK_DEFINITIONS,
}
"""Where the names of a kind stand."""


def split(target: str, kinds: Collection[str]) -> tuple[str, str]:
    """``KIND/NAME`` in two. Raises InvalidValue where there is no such kind, with the one that is like it, or no name;
    and with all kinds."""
    kind, slash, name = target.partition("/")
    if kind in kinds and name:
        return kind, name
    what = f"there is no kind {kind[:80]}{did_you_mean(kind, kinds)}" if slash and kind and kind not in kinds else ""
    what = what or f"expected a kind and a name, got {target!r:.80}"
    raise InvalidValue(what, hint=f"kinds are {', '.join(f'{one}/NAME' for one in kinds)}")


def one_of(what: str, name: str, names: Collection[str]) -> str:
    """``name`` if it is among ``names``, else the only one that begins with it. ``what`` is for people.

    Raises NotFound, with those that it may be, or one that is like it.
    """
    if name in names:
        return name
    begin = sorted((one for one in names if name and one.startswith(name)), key=natural)
    if len(begin) == 1:
        return begin[0]
    if begin:
        more = f" and {len(begin) - MAX_CANDIDATES} more" if len(begin) > MAX_CANDIDATES else ""
        candidates = f"it could be {', '.join(begin[:MAX_CANDIDATES])}{more}"
        raise NotFound(f"{name} is the beginning of {len(begin)} names", hint=candidates)
    near = nearest(name, names)
    listings = [f"`sked {kind}s`" for kind in what.split(" or ") if kind in PREFIXES and "_" not in kind]
    lists = f"{listings[0]} lists the {what}s" if len(listings) == 1 else f"{', '.join(listings)} list what there is"
    raise NotFound(f"no {what} {name}", hint=f"did you mean {near}?" if near else lists if listings else "")


def names_of(store: Store, kind: str, beginning: str = "") -> list[str]:
    """The names of one kind (of PREFIXES; task definitions as ``NAME/VERSION``) that begin like that, in natural order.

    Tasks without any scheduler, which only their host knows, are not among them. Raises Unavailable.
    """
    prefix = PREFIXES[kind]
    return sorted((key[len(prefix) :] for key in read_keys(store, prefix + beginning)), key=natural)


def named(store: Store, kind: str, name: str) -> str:
    """The task, service, host or cluster that ``name`` is, or the beginning of. Raises NotFound, Unavailable."""
    return one_of(kind, name, names_of(store, kind))


def notice_unknown(store: Store, **wanted: str) -> None:
    """Notice which of the names by which nothing was found (``service="web"``; empty: any) do not exist at all, each
    with one that is like it. A store that does not answer this meanwhile is no reason to fail."""
    for kind, name in wanted.items():
        try:
            if name:
                known(kind, name, names_of(store, kind))
        except NotFound as error:
            notice(f"sked: {plain(str(error))}; {plain(error.hint)}")
        except SkedError:
            return
