# SPDX-License-Identifier: Apache-2.0
"""A gateway and its routes become the routing model, with the status of each listener and route."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from epic.errors import Invalid
from epic.gatewayapi.attachment import (
    UNSUPPORTED,
    Attachment,
    RouteHostnames,
    admit,
    parents_on,
    unsupported,
)
from epic.gatewayapi.listeners import Served, judge, specified
from epic.gatewayapi.names import missing_name
from epic.gatewayapi.precedence import route_age
from epic.gatewayapi.routing import (
    Cluster,
    ListenerStatus,
    ParentStatus,
    Port,
    Routing,
    WeightedCluster,
)
from epic.gatewayapi.virtual_hosts import AttachedRoute, Backends, build_virtual_hosts, plan_virtual_hosts
from epic.model.gatewayapi import BackendRef, Listener, ParentReference
from epic.model.resources import GWProxy, GWRoute

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


def translate(proxy: GWProxy, routes: Iterable[GWRoute], services: Collection[str]) -> Translation:
    """Translate a gateway that has its address; `services` are the UIDs of the Services that exist.

    Raises Invalid when the routes make more of it than a gateway may be.
    """
    if proxy.spec.public_address is None:
        raise ValueError(f"gateway {proxy.id} has no public address")
    wanted = specified(proxy.spec)
    served, faults = judge(wanted)
    attached = [
        _attach_all(route, refs, wanted, served)
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
    parents = [status for a in attached for status in _parent_statuses(a, services)]
    return Translation(routing, tuple(states[listener.name] for listener in wanted), tuple(parents))


def _attach_all(
    route: GWRoute, refs: Iterable[ParentReference], wanted: Sequence[Listener], served: Sequence[Served]
) -> AttachedRoute:
    hostnames, fault = RouteHostnames(route), unsupported(route)
    if fault is not None:
        refused = tuple(Attachment(ref, reason=UNSUPPORTED, message=fault) for ref in refs)
        return AttachedRoute(route, hostnames, refused)
    return AttachedRoute(route, hostnames, tuple(admit(hostnames, ref, wanted, served) for ref in refs))


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


def _ports(served: Sequence[Served], attached: Sequence[AttachedRoute], weights: Backends) -> Iterator[Port]:
    by_port: dict[int, list[Served]] = defaultdict(list)
    for listener in served:
        by_port[listener.port].append(listener)
    numbers = sorted(number for number, sharing in by_port.items() if sharing[0].protocol == "HTTP")
    # What is refused is not built first.
    planned = dict(zip(numbers, plan_virtual_hosts([by_port[n] for n in numbers], attached), strict=True))
    for number in sorted(by_port):
        if number in planned:
            hosts = build_virtual_hosts(planned[number], weights)
            yield Port(number, "HTTP", virtual_hosts=tuple(sorted(hosts, key=lambda h: h.hostname)))
        else:
            yield Port(number, "TCP", backends=_tcp_backends(by_port[number][0], attached, weights))


def _tcp_backends(
    listener: Served, attached: Sequence[AttachedRoute], weights: Backends
) -> tuple[WeightedCluster, ...]:
    """The oldest route has the port; the others attach and wait."""
    first = next((a.route for a in attached if listener.name in a.listeners), None)
    rules = first.spec.tcp.rules if first and first.spec.tcp else ()
    return weights(rules[0].backend_refs) if rules else ()


def _parent_statuses(attached: AttachedRoute, services: Collection[str]) -> Iterator[ParentStatus]:
    references = _references(attached.route)
    missing = {_title(r) for r in references if not _is_service(r) or r.name not in services}
    unresolved = tuple(sorted(missing))
    for attachment in attached.attachments:
        yield ParentStatus(
            route=attached.route.name,
            section_name=attachment.parent.section_name,
            port=attachment.parent.port,
            accepted=attachment.accepted,
            reason=attachment.reason,
            message=attachment.message,
            unresolved=unresolved,
        )
