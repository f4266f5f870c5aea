"""``sked cordon``, ``uncordon`` and ``drain``: the mark of a host, which no agent ever writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
import msgspec

from sked_core.client import reading
from sked_core.client.session import Session
from sked_core.clock import SystemClock
from sked_core.interfaces.store import Delete, Op, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.spec import known
from sked_core.model.types import Mark
from sked_core.runtime.journal import utc
from sked_core.runtime.state import batches
from sked_core.surface.draining import wait_until_empty
from sked_core.surface.options import command, duration, session, timeout_option
from sked_core.surface.render import note

why_option = click.option("--why", metavar="TEXT", default="", help="The reason, for others to read.")


@command("cordon")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@why_option
def cordon(hosts: Sequence[str], why: str) -> None:
    """Place no further tasks on hosts; what runs there goes on."""
    with session() as sked:
        _mark(sked, hosts, Mark(state="cordoned"), why)
    note(f"cordoned: {' '.join(hosts)}")


@command("uncordon")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@why_option
def uncordon(hosts: Sequence[str], why: str) -> None:
    """Place tasks on hosts again; ends a drain too."""
    with session() as sked:
        _mark(sked, hosts, None, why)
    note(f"ready: {' '.join(hosts)}")


@command("drain")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--deadline", metavar="TIME", callback=duration, help="After so long go below `min` to end it.")
@click.option("--force", is_flag=True, help="Go below `min` at once.")
@why_option
@click.option("--wait", is_flag=True, help="Return once no task is left on them.")
@timeout_option("10m")
def drain(hosts: Sequence[str], deadline: float | None, force: bool, why: str, wait: bool, timeout: float) -> None:
    """Move all tasks away from hosts. All are marked at once, so that tasks don't hop from one to the next.

    A task leaves once its replacement elsewhere is healthy, where that keeps its service at `min`. `sked uncordon`
    ends a drain. The same drain again changes nothing; with other options it changes the drain.
    """
    if force and deadline is not None:
        raise click.UsageError("--force means now, --deadline means later: give one of them")
    if deadline is not None and deadline <= 0:
        raise click.UsageError("--deadline has to be more than 0; for no delay at all:  --force")
    names = list(dict.fromkeys(hosts))
    with session() as sked:
        _mark(sked, names, Mark(state="draining", force=force, deadline=deadline or 0.0), why)
        note(f"draining: {' '.join(names)} (undo: sked uncordon {' '.join(names)})")
        if wait:
            option = " --force" if force else f" --deadline {deadline:g}s" if deadline else ""
            wait_until_empty(sked.store, names, timeout, again=f"sked drain {' '.join(names)}{option} --wait")
            note(f"empty: {' '.join(names)}")


def _mark(sked: Session, hosts: Sequence[str], mark: Mark | None, why: str) -> None:
    """Set the mark of all hosts in one commit; None takes it away. Raises NotFound for a stranger.

    A host that has such a mark already keeps it, with the time at which a deadline began.
    """
    wanted = [keys.check_host(host) for host in dict.fromkeys(hosts)]
    there = [keys.last_segment(key) for key in sked.store.read(keys.HOSTS).entries]
    for host in wanted:
        known("host", host, there)
    before = reading.by_name(sked.store, keys.MARKS, Mark)
    changed = [host for host in wanted if not _same(before.get(host), mark, why)]
    if mark is not None and len(changed) >= sked.store.max_ops:  # then in two rounds: tasks still don't hop
        _commit(sked, changed, before, Mark(state="cordoned"), why)
    _commit(sked, changed, before, mark, why)


def _same(before: Mark | None, after: Mark | None, why: str) -> bool:
    if before is None or after is None:
        return before is after
    unchanged = (before.state, before.force, before.deadline) == (after.state, after.force, after.deadline)
    return unchanged and why in ("", before.why)


def _commit(sked: Session, hosts: Sequence[str], before: Mapping[str, Mark], mark: Mark | None, why: str) -> None:
    journal, at = sked.journal(), utc(SystemClock().wall())
    ops: list[list[Op]] = []
    events = {}
    for host in hosts:
        key, former = keys.mark(host), before.get(host, Mark(state="cordoned"))
        if mark is None:
            ops.append([Delete(key)])
        else:
            reason = why or (former.why if former.state == mark.state else "")
            ops.append([Put(key, encode(msgspec.structs.replace(mark, by=journal.who, at=at, why=reason)))])
        state = _said(former if host in before else None)
        what = f"host.{mark.state if mark else 'ready'}"
        events[key] = journal.event(what, f"host/{host}", host=host, why=why, before=state, after=_said(mark))
    for batch in batches(ops, max_ops=sked.store.max_ops - 1):
        told = [events[op.key] for op in batch]
        sked.store.commit([*batch, journal.put(told)])
        journal.tell(told)


def _said(mark: Mark | None) -> str:
    if mark is None:
        return "ready"
    return mark.state + (" by force" if mark.force else f" for {mark.deadline:g}s at most" if mark.deadline else "")
