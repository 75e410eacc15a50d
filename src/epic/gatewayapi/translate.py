# SPDX-License-Identifier: Apache-2.0
"""A gateway and its routes become the routing model, with the status of each listener and route."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from epic.gatewayapi.attached.routes import AttachedRoute, attach_routes
from epic.gatewayapi.backends import backend_refs, is_service
from epic.gatewayapi.listeners import Served, judge, specified
from epic.gatewayapi.names import missing_name
from epic.gatewayapi.routing import (
    Cluster,
    ListenerStatus,
    ParentStatus,
    Port,
    Routing,
    WeightedCluster,
)
from epic.gatewayapi.virtual_hosts import Backends, build_virtual_hosts, plan_virtual_hosts
from epic.model.gatewayapi import BackendRef
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute

Exists = Callable[[BackendRef], bool]
"""Whether there is what a backendRef refers to."""


@dataclass(frozen=True)
class Translation:
    """The routing model and what to tell the owners of the gateway and its routes."""

    routing: Routing
    listeners: tuple[ListenerStatus, ...]
    parents: tuple[ParentStatus, ...]
    left_out: int
    """Routes that the gateway has no room for."""


def translate(
    proxy: GWProxy,
    routes: Iterable[GWRoute],
    services: Collection[str],
    missing: Collection[Cluster] = frozenset(),
    members: Iterable[GWMember] = (),
) -> Translation:
    """Translate a gateway that has its address.

    `services` are the UIDs of the Services that exist, `missing` the ports that some of these do not have;
    `members` are all who share the gateway. Routes that the gateway has no room for are left out of it.
    """
    if not proxy.addresses:
        raise ValueError(f"gateway {proxy.id} has no public address")
    wanted = specified(proxy.spec)
    served, faults = judge(wanted)
    attached = attach_routes(proxy, routes, members)

    def exists(ref: BackendRef) -> bool:
        return is_service(ref) and ref.name in services and Cluster(ref.name, ref.port) not in missing

    clusters = _clusters([a.route for a in attached if a.listeners], exists)
    ports = _ports(served, attached, _weights(exists))
    routing = Routing(
        gateway=proxy.id,
        display_name=proxy.spec.display_name,
        addresses=proxy.addresses,
        ports=tuple(ports),
        clusters=clusters,
    )
    counts = {listener.name: sum(listener.name in a.listeners for a in attached) for listener in served}
    states = {f.listener: ListenerStatus(f.listener, False, f.reason, f.message, 0) for f in faults}
    states |= {name: ListenerStatus(name, True, "Accepted", "", count) for name, count in counts.items()}
    parents = [status for a in attached for status in _parent_statuses(a, exists)]
    left_out = sum(bool(a.left_out) for a in attached)
    return Translation(routing, tuple(states[each.name] for each in wanted), tuple(parents), left_out)


def _title(ref: BackendRef) -> str:
    port = f":{ref.port}" if is_service(ref) and ref.port is not None else ""
    return f"{ref.kind or 'Service'}/{ref.name}{port}"


def _clusters(routes: Iterable[GWRoute], exists: Exists) -> tuple[Cluster, ...]:
    """A cluster for each port of an existing Service that a route names."""
    found = {Cluster(ref.name, ref.port) for route in routes for ref in backend_refs(route) if exists(ref)}
    return tuple(sorted(found, key=lambda cluster: (cluster.service, cluster.port or 0)))


def _weights(exists: Exists) -> Backends:
    def weights(refs: Iterable[BackendRef]) -> tuple[WeightedCluster, ...]:
        shares: dict[WeightedCluster, int] = defaultdict(int)
        for ref in refs:
            shares[_share(ref, exists)] += ref.weight
        return tuple(WeightedCluster(s.cluster, weight, s.exists) for s, weight in shares.items() if weight)

    return weights


def _share(ref: BackendRef, exists: Exists) -> WeightedCluster:
    """Where a reference leads, without its weight."""
    if exists(ref):
        return WeightedCluster(Cluster(ref.name, ref.port).name, 0)
    return WeightedCluster(missing_name(ref.kind or "Service", ref.name, ref.group or ""), 0, exists=False)


def _ports(served: Sequence[Served], attached: Sequence[AttachedRoute], weights: Backends) -> Iterator[Port]:
    by_port: dict[int, list[Served]] = defaultdict(list)
    for listener in served:
        by_port[listener.port].append(listener)
    numbers = sorted(number for number, sharing in by_port.items() if sharing[0].protocol == "HTTP")
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


def _parent_statuses(attached: AttachedRoute, exists: Exists) -> Iterator[ParentStatus]:
    missing = {_title(ref) for ref in backend_refs(attached.route) if not exists(ref)}
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
