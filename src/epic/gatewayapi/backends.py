# SPDX-License-Identifier: Apache-2.0
"""What the rules of a route refer to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from epic.gatewayapi.routing import Cluster
from epic.gatewayapi.target_ports import ServicePorts, TargetPorts
from epic.model.gatewayapi import BackendRef
from epic.model.resources import GWRoute


def backend_refs(route: GWRoute) -> Iterator[BackendRef]:
    """All backendRefs of a route's rules."""
    for spec in route.spec.types.values():
        for rule in spec.rules:
            yield from rule.backend_refs


def is_service(ref: BackendRef) -> bool:
    """Whether it refers to a Service, and to nothing else of that name."""
    return (ref.kind or "Service") == "Service" and not ref.group


def missing_ports(
    routes: Iterable[GWRoute], services: Mapping[str, Collection[TargetPorts]]
) -> frozenset[Cluster]:
    """The ports that routes name of these Services, which are given as their slices, and do not have."""
    # Most Services have one port, which serves whatever is asked for: their routes need not be looked at.
    merged = {uid: ServicePorts(slices) for uid, slices in services.items()}
    doubtful = {uid: ports for uid, ports in merged.items() if not ports.lacks_none}
    if not doubtful:
        return frozenset()
    named = {
        Cluster(ref.name, ref.port)
        for route in routes
        for ref in backend_refs(route)
        if ref.name in doubtful and is_service(ref)
    }
    return frozenset(cluster for cluster in named if doubtful[cluster.service].lacks(cluster.port))
