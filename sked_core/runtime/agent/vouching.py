"""Whether records have to be signed on this host, and are. Imports nothing of that where its policy does not ask."""

from __future__ import annotations

from sked_core.clock import Clock
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.agent.issued_feed import Issue, Record
from sked_core.runtime.agent.settings import AgentSettings


class Vouching:
    """Called by the agent's main thread. See runtime.agent.verifying."""

    def __init__(self, settings: AgentSettings, disk: AgentDisk, clock: Clock) -> None:
        self._disk, self._verifier = disk, None
        if settings.policy.signing.required:
            from sked_core.runtime.agent.verifying import Verifier

            self._verifier = Verifier(settings.policy.signing, settings.state_dir, settings.host, clock)

    def check(self, record: Record) -> None:
        """Raises Rejected for a record that must not be started here."""
        if self._verifier:
            self._verifier.check(record, self._disk.identity().store_uid)

    def take(self, issue: Issue) -> None:
        """Take in one authoritative read."""
        if self._verifier:
            self._verifier.take(issue)
