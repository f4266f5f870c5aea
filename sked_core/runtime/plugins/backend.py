"""From the URL that people give to a store that works."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from urllib.parse import quote

from sked_core.errors import InvalidValue, PluginError, SkedError
from sked_core.interfaces.store import Store
from sked_core.model.spec import plain
from sked_core.runtime.plugins.registry import Plugins

log = logging.getLogger("sked")
PORT = ("read", "commit", "wait", "grant", "close")
"""What a store has to have."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


def default_url() -> str:
    """The embedded store of this user: ``sked/sked.db`` in the state folder of the XDG rules."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative XDG_STATE_HOME is to be ignored, says the XDG base directory specification.
    folder = home if home.is_absolute() else Path.home() / ".local" / "state"
    return "sqlite://" + quote(str(folder / "sked" / "sked.db"))


def scheme_of(url: str) -> str:
    """``consul`` of ``consul://127.0.0.1:8500``. Raises InvalidValue if there is none."""
    match = _SCHEME.match(url)
    if match is None:
        raise InvalidValue(
            f'"{plain(url[:80])}" is not the URL of a store',
            hint="such as consul://127.0.0.1:8500 or sqlite:///absolute/path.db",
        )
    return match[1]


def open_store(url: str, plugins: Plugins, prefix: str = "") -> Store:
    """The store at ``url``, all of whose keys stand below ``prefix`` (none by default).

    Raises PluginError with the ``pip install`` that would help when no plugin knows the scheme, and for one that gives
    no store; InvalidValue for
    a URL that can't be, Unavailable from the first use on when the store can't be reached.
    """
    scheme = scheme_of(url)
    store = plugins.storage(scheme)(url)
    if lacking := [name for name in PORT if not callable(getattr(store, name, None))]:
        who = f"storage {scheme} of {plugins.origin('storage', scheme)}"
        raise PluginError(f"{who} gave an object of type {type(store).__name__}, which has no {', '.join(lacking)}")
    if not prefix:
        return store
    from sked_core.runtime.stores.prefixed import Prefixed

    return Prefixed(store, prefix)


def tell_unguarded(store: Store) -> None:
    """Say in the log that the store lets anybody in, if it does; beside all else, since it may not answer now."""
    try:
        for what, remedy in getattr(store, "unguarded", list)():
            log.warning("%s; to mend it: %s", what, remedy)
    except SkedError as error:
        log.debug("whether the store lets anybody in is not known: %s", error)
