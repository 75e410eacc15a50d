# SPDX-License-Identifier: Apache-2.0
"""The virtual hosts of a gateway's HTTP listeners: planned and counted first, then built.

A few routes can ask for millions of matches. What would be too many is found out of numbers, and what is
built is put in order by merging: a sort of many thousands is one step, in which no other thread runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import merge
from itertools import chain

from epic.errors import Invalid
from epic.gatewayapi.attachment import Attachment, RouteHostnames
from epic.gatewayapi.hostnames import covering, most_specific
from epic.gatewayapi.listeners import Served
from epic.gatewayapi.precedence import MatchRank, match_headers, match_path, match_rank, route_age
from epic.gatewayapi.routing import HTTPRoute, VirtualHost, WeightedCluster
from epic.model.gatewayapi import BackendRef, HTTPRouteMatch
from epic.model.resources import GWRoute

Backends = Callable[[Iterable[BackendRef]], tuple[WeightedCluster, ...]]

MOST_ENTRIES = 100_000
"""Matches of a gateway's routes, counted for each listener and hostname that they are for."""
_TOO_MANY_ENTRIES = (
    f"The routes have more than {MOST_ENTRIES} matches, counted for each listener and hostname that they are "
    "for; use fewer hostnames, or fewer matches in routes that are for all of them"
)

_Ranked = tuple[MatchRank, HTTPRoute]
_EVERYTHING = (HTTPRouteMatch(),)
"""None said is every path (HTTPRouteRule of the Gateway API)."""


@dataclass(frozen=True)
class AttachedRoute:
    """A route with what became of its references, and the listeners that any of them reaches."""

    route: GWRoute
    hostnames: RouteHostnames
    attachments: tuple[Attachment, ...]

    @cached_property
    def listeners(self) -> frozenset[str]:
        """Their names."""
        return frozenset(name for a in self.attachments for name in a.listeners)

    @cached_property
    def match_count(self) -> int:
        """How many matches it has."""
        http = self.route.spec.http
        return sum(len(rule.matches) or 1 for rule in http.rules) if http else 0


_Routes = Mapping[str, Sequence[AttachedRoute]]
"""Of a listener, by the hostnames under which it serves them."""


def plan_virtual_hosts(
    ports: Iterable[Sequence[Served]], attached: Sequence[AttachedRoute]
) -> list[list[_Routes]]:
    """What is to be built of each port's listeners, in their order.

    Raises Invalid when that is more than MOST_ENTRIES.
    """
    count = _Count()
    return [_plan_port(listeners, attached, count) for listeners in ports]


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


class _Count:
    """How much was planned."""

    def __init__(self) -> None:
        self._left = MOST_ENTRIES

    def take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Invalid(_TOO_MANY_ENTRIES)


def _plan_port(
    listeners: Sequence[Served], attached: Sequence[AttachedRoute], count: _Count
) -> list[_Routes]:
    """One virtual host per hostname that belongs to a listener: a request is the most specific one's only.

    A listener's own hostname gets one even without routes, so that its requests fall to no other listener.
    """
    owners = {listener.hostname for listener in listeners}
    owner_of: dict[str, str | None] = {}
    planned: list[_Routes] = []
    for listener in listeners:
        found: defaultdict[str, list[AttachedRoute]] = defaultdict(list, {listener.hostname: []})
        # Each of them is one match at least: of what is too much no lists are made.
        pairs = _Count()
        for each in attached:
            for hostname in each.hostnames.on(listener) if listener.name in each.listeners else ():
                if hostname not in owner_of:
                    owner_of[hostname] = most_specific(owners, hostname)
                if owner_of[hostname] == listener.hostname:
                    pairs.take(1)
                    found[hostname].append(each)
        for hostname in found:
            count.take(1)
            of_host: set[str] = set()
            for wide in covering(hostname):
                for each in found.get(wide, ()):
                    if each.route.name not in of_host:
                        of_host.add(each.route.name)
                        count.take(each.match_count)
        planned.append(dict(found))
    return planned


def _ranked(route: GWRoute, weights: Backends) -> Iterator[_Ranked]:
    ref, age = route.spec.client_ref, route_age(route)
    title = f"{ref.namespace}/{ref.name}" if ref.name else route.name
    for number, rule in enumerate(route.spec.http.rules if route.spec.http else ()):
        backends = weights(rule.backend_refs)
        for position, match in enumerate(rule.matches or _EVERYTHING):
            yield (
                match_rank(match, age, number, position),
                HTTPRoute(
                    name=f"{title}/rule/{number}/match/{position}",
                    path_type="Exact" if match.path.type == "Exact" else "PathPrefix",
                    path=match_path(match),
                    headers=match_headers(match),
                    backends=backends,
                ),
            )
