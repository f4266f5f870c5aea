"""What people do to a store by hand, with any tool: what no command of Sked would do."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import patch

if TYPE_CHECKING:
    from sked_core.testing.sim.world import World

TEARING = ("move by hand", "delete task", "delete of host", "garble")
"""Actions after which the two keys of a task may differ by nobody's fault but theirs."""


class Hands:
    """Each method is one action; it returns what was done, for the story, or "" if nothing could be."""

    def __init__(self, world: World, dice: Random) -> None:
        self.world, self.dice, self.store = world, dice, world.user

    def _some_task(self) -> str:
        found = sorted(self.world.judge.mirror.shared)
        return self.dice.choice(found) if found else ""

    def delete_task(self) -> str:
        """Remove one of the keys of a task, or both."""
        task_id = self._some_task()
        task = self.world.judge.mirror.task(task_id) if task_id else None
        if task is None:
            return ""
        both = [Delete(keys.task(task_id)), Delete(keys.host_task(task.host, task_id))]
        some = self.dice.choice((both, both[:1], both[1:]))
        self.store.commit(some)
        return f"deletes {', '.join(op.key for op in some)}"

    def delete_of_host(self) -> str:
        """Remove all tasks of a host at once."""
        most = max(sorted(self.world.hosts), key=lambda name: len(self.world.judge.mirror.own.get(name, ())))
        host = self.dice.choice((most, self.dice.choice(sorted(self.world.hosts))))
        ids = sorted(self.world.judge.mirror.own.get(host, ()))
        if not ids:
            return ""
        self.store.commit([Delete(keys.host_task(host, task_id)) for task_id in ids][: self.store.max_ops])
        return f"deletes all {len(ids)} keys of {host}"

    def garble(self) -> str:
        """Write nonsense into a record of a task."""
        task_id = self._some_task()
        task = self.world.judge.mirror.task(task_id) if task_id else None
        if task is None:
            return ""
        garbage = self.dice.choice((b"", b"{", b"null", b'{"cluster": 1}', b"\xff\xfe"))
        which = [Put(keys.host_task(task.host, task_id), garbage), Put(keys.task(task_id), garbage)]
        some = self.dice.choice((which, which[:1]))
        self.store.commit(some)
        return f"writes {garbage!r} into {', '.join(op.key for op in some)}"

    def move_by_hand(self) -> str:
        """Write another host into the shared record of a task, and nothing else (A13)."""
        task_id = self._some_task()
        task = self.world.judge.mirror.task(task_id) if task_id else None
        if task is None or not task.scheduled or task.rejected:
            return ""
        host = self.dice.choice([name for name in sorted(self.world.hosts) if name != task.host])
        self.store.commit([Put(keys.task(task_id), patch(self.world.judge.mirror.shared[task_id], host=host))])
        return f"moves {task_id} to {host} by hand, in one of its keys"

    def clear_garbage(self) -> str:
        """Remove records that nobody can read, and what hands have left behind."""
        mirror = self.world.judge.mirror
        bad = [keys.task(task_id) for task_id, raw in sorted(mirror.shared.items()) if mirror.decoded(raw) is None]
        torn = any(self.world.counts.get(name) for name in TEARING)
        for host, records in sorted(mirror.own.items()):
            bad += [keys.host_task(host, i) for i, raw in sorted(records.items()) if mirror.decoded(raw) is None]
            if torn:
                # What is left of keys that somebody tore apart looks like a task that somebody issued by hand.
                bad += [keys.host_task(host, i) for i in sorted(records) if i not in mirror.shared]
        if torn:
            found = {task_id: mirror.task(task_id) for task_id in sorted(mirror.shared)}
            bad += [keys.task(i) for i, task in found.items() if task and i not in mirror.own.get(task.host, ())]
        if any(self.world.counts.get(lost) for lost in ("wipe", "restore")):
            # What agents write back of services that were deleted meanwhile looks so as well.
            declared = {name for cluster in mirror.clusters() for name in cluster.services}
            for task_id in sorted(mirror.shared):
                task = mirror.task(task_id)
                if task is not None and task.service not in declared:
                    bad += [keys.task(task_id), keys.host_task(task.host, task_id)]
        bad = sorted(set(bad))
        for start in range(0, len(bad), self.store.max_ops):
            self.store.commit([Delete(key) for key in bad[start : start + self.store.max_ops]])
        return f"removes {len(bad)} records that people left" if bad else ""
