# SPDX-License-Identifier: Apache-2.0
"""A gateway and its routes become the routing model, with the status of each listener and route."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from epic.errors import Invalid
from epic.gatewayapi.attachment import Attachment, attach, hostnames_on, parents_on
from epic.gatewayapi.hostnames import covering, most_specific
from epic.gatewayapi.listeners import Served, judge, specified
from epic.gatewayapi.names import missing_name
from epic.gatewayapi.precedence import MatchRank, match_headers, match_path, match_rank, route_age
from epic.gatewayapi.routing import (
    Cluster,
    HTTPRoute,
    ListenerStatus,
    ParentStatus,
    Port,
    Routing,
    VirtualHost,
    WeightedCluster,
)
from epic.model.gatewayapi import BackendRef, HTTPRouteMatch, HTTPRouteSpec
from epic.model.resources import GWProxy, GWRoute

Backends = Callable[[Iterable[BackendRef]], tuple[WeightedCluster, ...]]

MOST_ENTRIES = 100_000
"""Matches of a gateway's routes, counted for each listener and hostname that they are for."""
_TOO_MANY_ENTRIES = (
    f"The routes have more than {MOST_ENTRIES} matches, counted for each listener and hostname that they are "
    "for; use fewer hostnames, or fewer matches in routes that are for all of them"
)
MOST_PORTS_OF_SERVICE = 32
"""That a gateway's routes may name: each is a cluster with all of the Service's endpoints."""

MOST_CLUSTERS = 5_000
"""Ports of Services that a gateway's routes may name in all: each instance has its own of these clusters."""


@dataclass(frozen=True)
class Translation:
    """The routing model and what to tell the owners of the gateway and its routes."""

    routing: Routing
    listeners: tuple[ListenerStatus, ...]
    parents: tuple[ParentStatus, ...]


@dataclass(frozen=True)
class _Attached:
    """A route with what became of its references, and the listeners that any of them reaches."""

    route: GWRoute
    attachments: tuple[Attachment, ...]

    @property
    def listeners(self) -> frozenset[str]:
        return frozenset(name for a in self.attachments for name in a.listeners)


def translate(proxy: GWProxy, routes: Iterable[GWRoute], services: Collection[str]) -> Translation:
    """Translate a gateway that has its address; `services` are the UIDs of the Services that exist.

    Raises Invalid when the routes make more of it than a gateway may be.
    """
    if proxy.spec.public_address is None:
        raise ValueError(f"gateway {proxy.id} has no public address")
    wanted = specified(proxy.spec)
    served, faults = judge(wanted)
    attached = [
        _Attached(route, tuple(attach(route, ref, wanted, served) for ref in refs))
        for route in sorted(routes, key=route_age)
        if (refs := parents_on(route, proxy.name))
    ]
    clusters = _clusters([a.route for a in attached if a.listeners], services)
    ports = _ports(served, attached, _weights(services))
    routing = Routing(
        gateway=proxy.id,
        display_name=proxy.spec.display_name,
        public_address=proxy.spec.public_address,
        ports=tuple(ports),
        clusters=clusters,
    )
    counts = {listener.name: sum(listener.name in a.listeners for a in attached) for listener in served}
    states = {f.listener: ListenerStatus(f.listener, False, f.reason, f.message, 0) for f in faults}
    states |= {name: ListenerStatus(name, True, "Accepted", "", count) for name, count in counts.items()}
    parents = [_parent_status(a.route, x, services) for a in attached for x in a.attachments]
    return Translation(routing, tuple(states[listener.name] for listener in wanted), tuple(parents))


def _references(route: GWRoute) -> Iterator[BackendRef]:
    for http_rule in route.spec.http.rules if route.spec.http else ():
        yield from http_rule.backend_refs
    for tcp_rule in route.spec.tcp.rules if route.spec.tcp else ():
        yield from tcp_rule.backend_refs


def _is_service(ref: BackendRef) -> bool:
    return (ref.kind or "Service") == "Service" and not ref.group


def _title(ref: BackendRef) -> str:
    return f"{ref.kind or 'Service'}/{ref.name}"


def _clusters(routes: Iterable[GWRoute], services: Collection[str]) -> tuple[Cluster, ...]:
    """A cluster for each port of an existing Service that a route names."""
    found = {
        Cluster(ref.name, ref.port)
        for route in routes
        for ref in _references(route)
        if _is_service(ref) and ref.name in services
    }
    if len(found) > MOST_CLUSTERS:
        raise Invalid(
            f"The routes name {len(found)} ports of Services in all; at most {MOST_CLUSTERS} are possible"
        )
    for service, count in Counter(cluster.service for cluster in found).items():
        if count > MOST_PORTS_OF_SERVICE:
            raise Invalid(
                f"The routes name {count} ports of Service {service!r}; "
                f"at most {MOST_PORTS_OF_SERVICE} are possible"
            )
    return tuple(sorted(found, key=lambda cluster: (cluster.service, cluster.port or 0)))


def _weights(services: Collection[str]) -> Backends:
    def weights(refs: Iterable[BackendRef]) -> tuple[WeightedCluster, ...]:
        shares: dict[WeightedCluster, int] = defaultdict(int)
        for ref in refs:
            shares[_share(ref, services)] += ref.weight
        return tuple(WeightedCluster(s.cluster, weight, s.exists) for s, weight in shares.items() if weight)

    return weights


def _share(ref: BackendRef, services: Collection[str]) -> WeightedCluster:
    """Where a reference leads, without its weight."""
    if _is_service(ref) and ref.name in services:
        return WeightedCluster(Cluster(ref.name, ref.port).name, 0)
    return WeightedCluster(missing_name(ref.kind or "Service", ref.name, ref.group or ""), 0, exists=False)


def _ports(served: Sequence[Served], attached: Sequence[_Attached], weights: Backends) -> Iterator[Port]:
    by_port: dict[int, list[Served]] = defaultdict(list)
    for listener in served:
        by_port[listener.port].append(listener)
    entries = 0
    for number in sorted(by_port):
        listeners = by_port[number]
        if listeners[0].protocol == "TCP":
            yield Port(number, "TCP", backends=_tcp_backends(listeners[0], attached, weights))
        else:
            hosts = []
            for host in (h for x in listeners for h in _virtual_hosts(x, listeners, attached, weights)):
                entries += 1 + len(host.routes)
                if entries > MOST_ENTRIES:  # What is refused is not built first.
                    raise Invalid(_TOO_MANY_ENTRIES)
                hosts.append(host)
            yield Port(number, "HTTP", virtual_hosts=tuple(sorted(hosts, key=lambda h: h.hostname)))


def _tcp_backends(
    listener: Served, attached: Sequence[_Attached], weights: Backends
) -> tuple[WeightedCluster, ...]:
    """The oldest route has the port; the others attach and wait."""
    first = next((a.route for a in attached if listener.name in a.listeners), None)
    rules = first.spec.tcp.rules if first and first.spec.tcp else ()
    return weights(rules[0].backend_refs) if rules else ()


def _virtual_hosts(
    listener: Served, sharing: Sequence[Served], attached: Sequence[_Attached], weights: Backends
) -> Iterator[VirtualHost]:
    """One per hostname that belongs to the listener: a request belongs to the most specific listener only.

    A listener's own hostname gets one even without routes, so that its requests fall to no other listener.
    Below the routes of the hostname itself come those of wider hostnames: a route for `*.x` also serves
    the paths of `a.x` that no route for `a.x` matches.
    """
    ranked: dict[str, list[tuple[MatchRank, HTTPRoute]]] = {listener.hostname: []}
    for route in (a.route for a in attached if listener.name in a.listeners):
        items = list(_http_routes(route, route.spec.http, weights)) if route.spec.http else []
        for hostname in hostnames_on(route, listener):
            ranked.setdefault(hostname, []).extend(items)
    for found in ranked.values():
        found.sort(key=lambda item: item[0])
    owners = {other.hostname for other in sharing}
    for hostname in ranked:
        if most_specific(owners, hostname) == listener.hostname:
            wider = (ranked[h] for h in covering(hostname) if h in ranked)
            routes = (route for found in wider for _, route in found)
            yield VirtualHost(hostname, tuple(dict.fromkeys(routes)))


def _http_routes(
    route: GWRoute, spec: HTTPRouteSpec, weights: Backends
) -> Iterator[tuple[MatchRank, HTTPRoute]]:
    ref, age = route.spec.client_ref, route_age(route)
    title = f"{ref.namespace}/{ref.name}" if ref.name else route.name
    for number, rule in enumerate(spec.rules):
        backends = weights(rule.backend_refs)
        # None said is every path (HTTPRouteRule of the Gateway API).
        for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
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


def _parent_status(route: GWRoute, attachment: Attachment, services: Collection[str]) -> ParentStatus:
    missing = {_title(r) for r in _references(route) if not _is_service(r) or r.name not in services}
    return ParentStatus(
        route=route.name,
        section_name=attachment.parent.section_name,
        port=attachment.parent.port,
        accepted=attachment.accepted,
        reason=attachment.reason,
        message=attachment.message,
        unresolved=tuple(sorted(missing)),
    )
