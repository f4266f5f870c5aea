"""What people do to tasks that run: have them restarted, and stopped."""

from __future__ import annotations

from sked_core.client.acting.restarting import restart_in_place, stop_in_place
from sked_core.interfaces.store import Check, Op, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Moves, TaskMove
from sked_core.testing.sim.users import CLUSTER, Users


class Restarts:
    """Each method is one action of ``users``; it returns what was done, as theirs do."""

    def __init__(self, users: Users) -> None:
        self._users = users

    def restart(self) -> str:
        """Ask for all tasks of a service to be restarted, or for one of them."""
        name = self._users._some_service()
        service = self._users._declared(name) if name else None
        tasks = self._users.world.judge.mirror.tasks_of((CLUSTER, name)) if service is not None else []
        if service is None or not tasks:
            return ""
        if self._users.dice.random() < 0.5:
            task = self._users.dice.choice(sorted(tasks, key=lambda one: one.id))
            return self._users._attempt(
                lambda: restart_in_place(self._users.store, self._users.journal, task.id, "user"), f"restarts {task.id}"
            )
        moves = [TaskMove(task=one.id, cluster=CLUSTER, source=one.host, to=one.host) for one in tasks if one.host]
        record = Moves(moves=moves, desired=service.desired, by="user")
        ops: list[Op] = [Check(keys.moves(name), Revision(0)), Put(keys.moves(name), encode(record))]
        return self._users._attempt(lambda: self._users.store.commit(ops), f"restarts {name}")

    def stop(self) -> str:
        """Stop one task for good."""
        name = self._users._some_service()
        tasks = sorted(self._users.world.judge.mirror.tasks_of((CLUSTER, name)), key=lambda one: one.id) if name else []
        if not tasks:
            return ""
        task = self._users.dice.choice(tasks)
        return self._users._attempt(
            lambda: stop_in_place(self._users.store, self._users.journal, task.id, "user"), f"stops {task.id}"
        )
