# SPDX-License-Identifier: Apache-2.0
"""Which listeners of a gateway each of its routes reaches.

What does not fit on the gateway is left out, so that it stops nobody else: the older routes are served, and
of the younger ones each that fits beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from epic.gatewayapi.attached.needs import need_of
from epic.gatewayapi.attached.room import Demand, Room, surely_fit
from epic.gatewayapi.attachment import (
    UNSUPPORTED,
    Attachment,
    RouteHostnames,
    admit,
    parents_on,
    unsupported,
)
from epic.gatewayapi.listeners import Served, judge, specified
from epic.gatewayapi.namespaces import AllowedNamespaces
from epic.gatewayapi.precedence import route_age
from epic.model.gatewayapi import Listener, ParentReference
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute


@dataclass(frozen=True)
class AttachedRoute:
    """A route with what became of its references, and the listeners that any of them reaches."""

    route: GWRoute
    hostnames: RouteHostnames
    attachments: tuple[Attachment, ...]
    left_out: str = ""
    """Why it does not fit, if it does not."""

    @cached_property
    def listeners(self) -> frozenset[str]:
        """Their names."""
        return frozenset(name for a in self.attachments for name in a.listeners)


def attach_routes(
    proxy: GWProxy, routes: Iterable[GWRoute], members: Iterable[GWMember]
) -> list[AttachedRoute]:
    """Those of the routes that refer to the gateway, the oldest first; `members` are all who share it."""
    wanted = specified(proxy.spec)
    served, _ = judge(wanted)
    allowed = AllowedNamespaces(proxy, wanted, members)
    attached = [
        _attach_all(route, refs, wanted, served, allowed)
        for route in sorted(routes, key=route_age)
        if (refs := parents_on(route, proxy.name))
    ]
    if surely_fit(served, (need_of(each.route) for each in attached)):
        return attached
    room = Room(served)
    return [_fit(each, room) for each in attached]


def left_out(proxy: GWProxy, routes: Sequence[GWRoute], members: Iterable[GWMember]) -> Mapping[str, str]:
    """The routes that the gateway, which the members share, has no room for, by name, and why."""
    if surely_fit(judge(specified(proxy.spec))[0], map(need_of, routes)):
        return {}
    attached = attach_routes(proxy, routes, members)
    return {each.route.name: each.left_out for each in attached if each.left_out}


def no_room(parent: ParentReference, why: str) -> Attachment:
    """What becomes of a reference of a route that is left out."""
    return Attachment(parent, reason=UNSUPPORTED, message=f"The gateway has no room for it: {why}.")


def _attach_all(
    route: GWRoute,
    refs: Iterable[ParentReference],
    wanted: Sequence[Listener],
    served: Sequence[Served],
    allowed: AllowedNamespaces,
) -> AttachedRoute:
    hostnames, fault = RouteHostnames(route), unsupported(route)
    if fault is not None:
        refused = tuple(Attachment(ref, reason=UNSUPPORTED, message=fault) for ref in refs)
        return AttachedRoute(route, hostnames, refused)
    closed = allowed.closed_to(route)
    attachments = tuple(admit(hostnames, ref, wanted, served, closed) for ref in refs)
    return AttachedRoute(route, hostnames, attachments)


def _fit(each: AttachedRoute, room: Room) -> AttachedRoute:
    """It as it is if there is room for it, which it takes then; otherwise attached nowhere."""
    why = ""
    if each.listeners:
        why = room.take(Demand(each.listeners, each.hostnames.on, need_of(each.route)))
    if not why:
        return each
    attachments = tuple(no_room(a.parent, why) if a.accepted else a for a in each.attachments)
    return replace(each, attachments=attachments, left_out=why)
