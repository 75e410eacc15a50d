# SPDX-License-Identifier: Apache-2.0
"""What each route needs on whatever gateway: found once for each route, for as long as the route is kept.

Many ask for it, and a gateway may have thousands of routes of which one has changed.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import NamedTuple

from epic.gatewayapi.attached.matches import match_name, matches_of
from epic.gatewayapi.attached.sizes import action_size, heaviest, host_size, match_size
from epic.gatewayapi.backends import backend_refs, is_service
from epic.gatewayapi.precedence import match_headers, match_path
from epic.gatewayapi.routing import Cluster
from epic.model.resources import GWRoute


class Load(NamedTuple):
    """What a route is in each virtual host that it is for: entries, and bytes."""

    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a route needs."""

    load: Load
    clusters: tuple[Cluster, ...]
    """The ports of Services that it names, whether these exist or not."""
    hosts: Load
    """The virtual hosts of its own hostnames, without routes."""
    labels: int
    """Of its hostnames: what a look at it on one listener costs."""
    is_wide: bool
    """Whether it is also for virtual hosts of other hostnames than its own."""


_found: dict[int, tuple[weakref.ref[GWRoute], Need]] = {}


def need_of(route: GWRoute) -> Need:
    """What the route needs. May be called from any thread."""
    key = id(route)
    known = _found.get(key)
    if known is not None and known[0]() is route:
        return known[1]
    need = _need(route)
    _found[key] = (weakref.ref(route, lambda _: _found.pop(key, None)), need)
    return need


def _need(route: GWRoute) -> Need:
    http = route.spec.http
    hostnames = {name.lower() for name in http.hostnames} if http else set()
    return Need(
        load=_load(route),
        clusters=tuple({Cluster(ref.name, ref.port) for ref in backend_refs(route) if is_service(ref)}),
        hosts=Load(len(hostnames), sum(map(host_size, hostnames))),
        labels=sum(name.count(".") + 1 for name in hostnames) or 1,
        is_wide=not hostnames or any(name.startswith("*") for name in hostnames),
    )


def _load(route: GWRoute) -> Load:
    """What it is in each of its virtual hosts; without rules it takes room, too, for what is made of it."""
    if route.spec.http is None:
        return Load(0, 0)
    entries = size = 0
    for number, rule in enumerate(route.spec.http.rules):
        action = action_size(heaviest(rule.backend_refs))
        for position, match in enumerate(matches_of(rule)):
            name = match_name(route, number, position)
            entries += 1
            size += match_size(name, match_path(match), match_headers(match), action)
    return Load(max(entries, 1), size)
