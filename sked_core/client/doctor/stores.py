"""Whether the store answers, allows what is needed, and holds what makes sense."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sked_core.client.doctor.exam import Check, Exam, Fault, Unknown
from sked_core.client.looking.linting import lint
from sked_core.client.outcomes import hints_of
from sked_core.client.settings import masked
from sked_core.errors import Conflict, Denied, InvalidValue, PluginError, SkedError, Unavailable
from sked_core.interfaces.store import Check as Guard
from sked_core.interfaces.store import Put, Revision, Store
from sked_core.model import keys
from sked_core.runtime.agent.disk import AgentDisk

NEVER = Revision(2**50)
"""No store gets there: what is guarded by it is never carried out, but refused first where a right lacks."""
PROBE = "sked-doctor"
GRANT = "give it the rights of its role: docs/operations.md"


def answers(exam: Exam) -> Iterator[Fault]:
    try:
        exam.session().store.read(keys.META)
    except Denied:
        return  # it answers
    except (Unavailable, PluginError, InvalidValue) as error:
        origin = exam.given.backend.origin
        hints = [*hints_of(error), *([f"from: {origin}"] if origin else [])]
        yield Fault(str(error), "\n".join(hints) or "is it running, and the address right?")


def silent(exam: Exam) -> Fault:
    return Fault(f"{masked(exam.given.backend.value)} does not answer", "is it running, and the address right?")


def rights(exam: Exam) -> Iterator[Fault]:
    """Enough for one of the roles will do: an agent's token need not be good for more."""
    store = exam.session().store
    unread = [prefix for prefix in (keys.CONFIG, keys.STATE, keys.META) if not _may_read(store, prefix)]
    if unread:
        yield Fault(f"this token may not read {', '.join(unread)}", GRANT)
        return
    lacking = {
        role: [key for key in needed if not _may_write(store, key)] for role, needed in _roles(exam.host).items()
    }
    if all(lacking.values()):
        role, missing = min(lacking.items(), key=lambda pair: len(pair[1]))
        below = ", ".join(sorted({key.rpartition("/")[0] + "/" for key in missing}))
        yield Fault(
            f"this token is enough for no role; as {role} it may not write {below}",
            GRANT,
        )


def _roles(host: str) -> Mapping[str, tuple[str, ...]]:
    common = (keys.EVENTS + PROBE,)
    return {
        "people": (
            keys.cluster(PROBE),
            keys.mark(host),
            keys.rollout(PROBE),
            keys.moves(PROBE),
            keys.META + PROBE,
            *common,
        ),
        "an agent": (
            keys.host(host),
            keys.task(PROBE),
            keys.host_task(host, PROBE),
            keys.live(host),
            keys.agent(host),
            keys.changed(PROBE),
            *common,
        ),
        "a scheduler": (keys.task(PROBE), keys.service_lock(PROBE), keys.service_status(PROBE), keys.changed(PROBE)),
    }


def _may_read(store: Store, prefix: str) -> bool:
    try:
        store.read(prefix)
    except Denied:
        return False
    return True


def _may_write(store: Store, key: str) -> bool:
    try:
        store.commit([Guard(key, NEVER), Put(key, b"")])
    except Conflict:
        return True
    except Denied:
        return False
    raise Unknown(f"a commit that was to be refused was carried out: {key}")


def identity(exam: Exam) -> Iterator[Fault]:
    folder = exam.state_dir
    if not (folder / "identity.json").exists():
        return
    disk = AgentDisk(folder)
    pinned, seen = disk.identity().store_uid, disk.seen().count
    entries = exam.entries()
    found = entries[keys.STORE_UID].value.decode("ascii", "replace") if keys.STORE_UID in entries else ""
    remedy = "restore the store's data; or go on with it as it is:  sked run agent --accept-store"
    if pinned and found != pinned:
        what = f"another one than before ({found}, was {pinned})" if found else "empty: it came back without its data"
        what = f"the store is {what}; the agent of {exam.host} starts and stops nothing until that is settled"
        yield Fault(what, remedy)
        return
    count = entries.get(keys.agent(exam.host))
    with contextlib.suppress(ValueError):
        if pinned and int(count.value if count else 0) < seen:
            yield Fault(f"the store was set back to an older state; the agent of {exam.host} is frozen", remedy)


def contents(exam: Exam) -> Iterator[Fault]:
    if found := lint(exam.entries()):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield Fault(f"{found[0].key}: {found[0].what}{more}", "all of it, with what to do:  sked state check")


def own_doubts(exam: Exam) -> Iterator[Fault]:
    store = exam.session().store
    try:
        yield from (Fault(what, remedy) for what, remedy in getattr(store, "doubts", list)())
        with contextlib.suppress(Unavailable):  # which other checks tell
            yield from (Fault(what, remedy) for what, remedy in getattr(store, "unguarded", list)())
    except SkedError as error:
        raise Unknown(str(error)) from None


CHECKS = (
    Check("store", "no plugin for the store, a store that can't be reached, or that does not answer", answers, silent),
    Check("rights", "a token that is missing, or may not read and write what any role needs", rights),
    Check(
        "identity",
        "a store that came back empty, set back or is another one, so that the agent here is frozen",
        identity,
    ),
    Check("contents", "keys that can't be read or don't fit together (what `sked state check` finds)", contents),
    Check(
        "engine-of-store",
        "a store that lets anybody in; etcd near its quota or never compacted; a Consul agent of another host",
        own_doubts,
    ),
)
