"""Reading what a look is made of from the copy of the state, in which all is decoded already."""

from __future__ import annotations

from sked_core.client.copied.picture import Picture
from sked_core.model import keys
from sked_web.pages.sight import Facts


def facts_of(picture: Picture) -> Facts:
    """All of it."""
    services = picture.objects(keys.SERVICES)
    definitions = picture.objects(keys.TASK_DEFINITIONS).values()
    declared = {keys.last_segment(key) for key in picture.area(keys.SERVICES)}
    return Facts(
        tasks=picture.tasks(),
        health=picture.health,
        hosts=picture.objects(keys.HOSTS),
        alive=frozenset(keys.last_segment(key) for key in picture.area(keys.LIVE)),
        silent=picture.silent,
        marks=picture.objects(keys.MARKS),
        services=services,
        clusters=picture.objects(keys.CLUSTERS),
        definitions={(one.name, one.version): one for one in definitions},
        rollouts=picture.objects(keys.ROLLOUTS),
        moves=picture.objects(keys.MOVES),
        statuses=picture.objects(keys.SERVICE_STATUS),
        failures=picture.objects(keys.FAILURES),
        schedulers=picture.objects(keys.SCHEDULERS),
        broken=declared - set(services),
    )
