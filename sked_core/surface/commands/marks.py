"""``sked cordon``, ``uncordon`` and ``drain``: the mark of a host, which no agent ever writes."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence

import click

from sked_core.errors import NotFound
from sked_core.interfaces.store import Delete, Op, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Mark
from sked_core.surface import errors
from sked_core.surface.options import command, session, timeout_option
from sked_core.surface.render import note

LONGEST_WAIT = 10.0


@command("cordon")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
def cordon(hosts: Sequence[str]) -> None:
    """Place no further tasks on hosts; what runs there goes on."""
    with session() as sked:
        _mark(sked.store, hosts, Mark(state="cordoned"))
    note(f"cordoned: {' '.join(hosts)}")


@command("uncordon")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
def uncordon(hosts: Sequence[str]) -> None:
    """Place tasks on hosts again; ends a drain too."""
    with session() as sked:
        _mark(sked.store, hosts, None)
    note(f"ready: {' '.join(hosts)}")


@command("drain")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Return once no task is left on them.")
@timeout_option("10m")
def drain(hosts: Sequence[str], wait: bool, timeout: float) -> None:
    """Move all tasks away from hosts. All are marked at once, so that tasks don't hop from one to the next."""
    with session() as sked:
        _mark(sked.store, hosts, Mark(state="draining"))
        note(f"draining: {' '.join(hosts)} (undo: sked uncordon {' '.join(hosts)})")
        if wait:
            _wait_until_empty(sked.store, hosts, timeout)
            note(f"empty: {' '.join(hosts)}")


def _mark(store: Store, hosts: Sequence[str], mark: Mark | None) -> None:
    """Set the mark of all hosts in one commit; None takes it away. Raises NotFound for a stranger."""
    wanted = [keys.check_host(host) for host in dict.fromkeys(hosts)]
    known = [keys.last_segment(key) for key in store.read(keys.HOSTS).entries]
    for host in wanted:
        if host not in known:
            near = difflib.get_close_matches(host, known, n=1)
            raise NotFound(
                f"no host {host}", hint=f"did you mean {near[0]}?" if near else "`sked hosts` lists the hosts"
            )
    ops: list[Op] = [Put(keys.mark(host), encode(mark)) if mark else Delete(keys.mark(host)) for host in wanted]
    store.commit(ops)


def _wait_until_empty(store: Store, hosts: Sequence[str], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for host in hosts:
        prefix = keys.host_tasks(host)
        while True:
            snapshot = store.read(prefix)
            left = [key for key in snapshot.entries if keys.last_segment(key)]
            if not left:
                break
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise errors.Ended(
                    f"{errors.counted(len(left), 'task')} still on {host}",
                    code=errors.TIMED_OUT,
                    hint=f"the drain goes on\nwhat is left:  sked tasks --by-host {host}\nwhat waits:    sked services",
                )
            store.wait(prefix, snapshot.revision, min(remaining, LONGEST_WAIT))
