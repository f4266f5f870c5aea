"""Worlds that are not: a host more or less, another count, another scheduler. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import msgspec

from sked_core.errors import InvalidValue
from sked_core.logic.apply import scale as scaled
from sked_core.logic.fleet import HostView
from sked_core.logic.world import World
from sked_core.model import keys
from sked_core.model.amount import to_cpu_units, to_mb
from sked_core.model.codec import decode, encode
from sked_core.model.spec import known
from sked_core.model.types import Service


def lose(world: World, host: str) -> World:
    """Without an agent on ``host``, for good. Raises NotFound."""
    view = world.hosts[known("host", host, world.hosts)]
    return _with_host(world, replace(view, alive=False, lost=True))


def drain(world: World, host: str) -> World:
    """With ``host`` marked as draining. Raises NotFound."""
    view = world.hosts[known("host", host, world.hosts)]
    return _with_host(world, replace(view, mark="draining"))


def scale(world: World, service: str, count: int) -> World:
    """With ``count`` tasks of ``service``, as ``sked scale`` does it. Raises NotFound, and InvalidValue for a count
    outside of bounds that were given, or where what is declared can't be read."""
    return _with_services(world, [decode(scaled(encode(world.declared(service)), count), Service)])


def place_by(world: World, scheduler: str, service: str = "") -> World:
    """With ``service``, or all of them, placed by ``scheduler``. Raises NotFound, InvalidValue."""
    services = [world.declared(service)] if service else world.services.values()
    return _with_services(world, [msgspec.structs.replace(one, scheduler=scheduler) for one in services])


def afresh(world: World) -> World:
    """As if no task had been placed yet."""
    return replace(world, issued={}, health={})


def add_host(world: World, text: str) -> World:
    """With one more host: ``NAME`` or ``NAME:memory=8g,cpu=4,disk=100g,tag.zone=a,like=HOST``.

    What is not said is as on the host ``like``, or else as on the first one that is alive, but for its tags.
    Raises InvalidValue, NotFound.
    """
    name, _, rest = text.partition(":")
    if keys.check_host(name) in world.hosts:
        raise InvalidValue(f"there is a host {name} already", hint="give the new one another name")
    said = dict(_said(part, text) for part in rest.split(",") if part)
    like = said.pop("like", "")
    model = world.hosts[known("host", like, world.hosts)] if like else _typical(world)
    tags = dict(model.host.tags) if like else {}
    tags |= {key.removeprefix("tag."): value for key, value in said.items() if key.startswith("tag.")}
    sizes = {"memory": to_mb, "cpu": to_cpu_units, "disk": to_mb}
    for key in said.keys() - sizes.keys():
        if not key.startswith("tag.") or key == "tag.":
            raise InvalidValue(
                f"{key} is nothing that a host has", hint="it may have memory, cpu, disk, tag.NAME and like"
            )
    amounts = {"cpu_units" if key == "cpu" else key: sizes[key](said[key]) for key in sizes if key in said}
    host = msgspec.structs.replace(model.host, name=name, address="", ports=[], tags=tags, **amounts)
    return _with_host(world, HostView(host))


def _typical(world: World) -> HostView:
    alive: Collection[HostView] = [view for view in world.hosts.values() if view.alive]
    if not alive:
        raise InvalidValue("no host is alive that the new one could be like", hint="name one with like=HOST")
    return min(alive, key=lambda view: view.host.name)


def _said(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or not value:
        raise InvalidValue(f"expected NAME:memory=8g,cpu=4,disk=100g,tag.zone=a,like=HOST, got {text}")
    return key, value


def _with_host(world: World, view: HostView) -> World:
    return replace(world, hosts=dict(sorted({**world.hosts, view.host.name: view}.items())))


def _with_services(world: World, services: Iterable[Service]) -> World:
    return replace(world, services={**world.services, **{one.name: one for one in services}})
