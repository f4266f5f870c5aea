"""What stands in the store, as commands of plugins are given it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sked_core.interfaces.invocation import Reading, SeenHost, SeenTask

if TYPE_CHECKING:
    from sked_core.client.session import Session
    from sked_core.model.types import Cluster, Service


@dataclass(frozen=True, slots=True)
class SessionReading:
    """See Reading."""

    session: Session
    stale: str = ""

    def tasks(self) -> list[SeenTask]:
        from sked_core.client.looking.listing import task_rows

        return [
            SeenTask(row.task, row.health, row.failure.reason or row.failure.output if row.failure else "")
            for row in task_rows(self.session)
        ]

    def services(self) -> list[Service]:
        from sked_core.client import reading

        return [item.value for item in reading.services(self.session.store)]

    def clusters(self) -> list[Cluster]:
        from sked_core.client import reading

        return [item.value for item in reading.clusters(self.session.store)]

    def hosts(self) -> list[SeenHost]:
        from sked_core.client.looking.listing import host_rows

        return [SeenHost(row.host, row.state) for row in host_rows(self.session)]

    def looks(self) -> Iterator[Reading]:
        from sked_core.surface.watching import looks

        for seen, stale in looks(self.session):
            yield SessionReading(seen, stale.trouble if stale is not None else "")
