# SPDX-License-Identifier: Apache-2.0
"""The virtual hosts of a gateway's HTTP listeners: planned first, then built.

What is built is put in order by merging: a sort of many thousands is one step, in which no other thread runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import chain

from epic.gatewayapi.attached.matches import match_name, matches_of
from epic.gatewayapi.attached.routes import AttachedRoute
from epic.gatewayapi.hostnames import covering, most_specific
from epic.gatewayapi.listeners import Served
from epic.gatewayapi.precedence import MatchRank, match_headers, match_path, match_rank, route_age
from epic.gatewayapi.routing import HTTPRoute, VirtualHost, WeightedCluster
from epic.model.gatewayapi import BackendRef
from epic.model.resources import GWRoute

Backends = Callable[[Iterable[BackendRef]], tuple[WeightedCluster, ...]]

_Ranked = tuple[MatchRank, HTTPRoute]
_Routes = Mapping[str, Sequence[AttachedRoute]]
"""Of a listener, by the hostnames under which it serves them."""


def plan_virtual_hosts(
    ports: Iterable[Sequence[Served]], attached: Sequence[AttachedRoute]
) -> list[list[_Routes]]:
    """What is to be built of each port's listeners, in their order."""
    return [_plan_port(listeners, attached) for listeners in ports]


def build_virtual_hosts(planned: Iterable[_Routes], weights: Backends) -> Iterator[VirtualHost]:
    """The virtual hosts of a port, as they were planned.

    Below the routes of a hostname itself come those of wider hostnames: a route for `*.x` also serves the
    paths of `a.x` that no route for `a.x` matches.
    """
    runs: dict[str, list[_Ranked]] = {}
    for routes in planned:
        ordered: dict[str, list[HTTPRoute]] = {}
        for hostname, found in routes.items():
            for each in found:
                if each.route.name not in runs:
                    runs[each.route.name] = sorted(_ranked(each.route, weights), key=lambda item: item[0])
            ordered[hostname] = [route for _, route in merge(*(runs[each.route.name] for each in found))]
        for hostname in routes:
            wider = (ordered[wide] for wide in covering(hostname) if wide in ordered)
            yield VirtualHost(hostname, tuple(dict.fromkeys(chain.from_iterable(wider))))


def _plan_port(listeners: Sequence[Served], attached: Sequence[AttachedRoute]) -> list[_Routes]:
    """One virtual host per hostname that belongs to a listener: a request is the most specific one's only.

    A listener's own hostname gets one even without routes, so that its requests fall to no other listener.
    """
    owners = {listener.hostname for listener in listeners}
    owner_of: dict[str, str | None] = {}
    planned: list[_Routes] = []
    for listener in listeners:
        found: defaultdict[str, list[AttachedRoute]] = defaultdict(list, {listener.hostname: []})
        for each in attached:
            for hostname in each.hostnames.on(listener) if listener.name in each.listeners else ():
                if hostname not in owner_of:
                    owner_of[hostname] = most_specific(owners, hostname)
                if owner_of[hostname] == listener.hostname:
                    found[hostname].append(each)
        planned.append(dict(found))
    return planned


def _ranked(route: GWRoute, weights: Backends) -> Iterator[_Ranked]:
    age = route_age(route)
    for number, rule in enumerate(route.spec.http.rules if route.spec.http else ()):
        backends = weights(rule.backend_refs)
        for position, match in enumerate(matches_of(rule)):
            yield (
                match_rank(match, age, number, position),
                HTTPRoute(
                    name=match_name(route, number, position),
                    path_type="Exact" if match.path.type == "Exact" else "PathPrefix",
                    path=match_path(match),
                    headers=match_headers(match),
                    backends=backends,
                ),
            )
