"""The rules about what processes take of the store (C)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from campaign.judge import Moment, Rule, Terms, lasting


def rules(terms: Terms) -> Mapping[str, Sequence[Rule]]:
    return {"C9": [FewConnections(terms)]}


class FewConnections:
    """A process keeps few connections to the store, however many tasks there are."""

    def __init__(self, terms: Terms) -> None:
        self._most = terms.connections
        self._over = lasting(3.0)

    def __call__(self, moment: Moment) -> Iterator[str]:
        if not moment.sample.fresh:
            return
        yield from self._over(
            {
                name: f"{name} has {count} connections to the store"
                for name, count in moment.sample.connections.items()
                if count > self._most
            },
            moment.counted,
        )
