"""What agents keep of tasks that ended: their endings, also of tasks that are gone. stories.py tells them in order."""

from __future__ import annotations

from sked_core.client import reading
from sked_core.interfaces.store import Store
from sked_core.model import keys
from sked_core.model.endings import Ending


def endings(store: Store, *, task: str = "", service: str = "", host: str = "") -> list[Ending]:
    """The endings that are kept, of one task, service or host where that is given, oldest first. What can't be read is
    noticed. Raises Unavailable."""
    found = reading.items(store.read(keys.endings(host) if host else keys.ENDINGS).entries, Ending)
    wanted = [
        item.value
        for item in found
        if (not task or item.value.task == task) and (not service or item.value.service == service)
    ]
    return sorted(wanted, key=lambda one: (one.ended, one.host))


def previous(store: Store, task: str, *, host: str = "") -> Ending | None:
    """The last run of the task that has ended, with the last lines that it wrote; on ``host`` where that is given. None
    where nothing is kept of it. A rejection counts only where there was no run. Raises Unavailable."""
    found = endings(store, task=task, host=host)
    runs = [one for one in found if one.cause != "rejected"]
    kept = runs or found
    return kept[-1] if kept else None
