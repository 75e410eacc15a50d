# SPDX-License-Identifier: Apache-2.0
"""Which tunnels a gateway needs, pure: from its instances, routes and slices to the wanted tunnels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from epic.gatewayapi.attachment import is_gateway
from epic.model.resources import (
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    Node,
    NodeTunnelEndpoints,
    Tunnel,
    TunnelEndpoint,
)
from epic.model.values.addresses import Address, usable


class WorkloadNode(NamedTuple):
    """A node of a client's cluster; node names are unique only within their cluster."""

    cluster_id: str
    name: str


class Connection(NamedTuple):
    """What a tunnel connects: it is the same tunnel as long as this stays."""

    proxy: str
    epic_node: str
    workload: WorkloadNode


@dataclass(frozen=True)
class WantedTunnel:
    """A tunnel that must exist, without its id and keys."""

    key: Connection
    inside_address: IPv4Address
    node_address: Address


@dataclass(frozen=True)
class TunnelPlan:
    """What to do with the stored tunnels of a gateway."""

    create: tuple[WantedTunnel, ...]
    update: tuple[Tunnel, ...]
    delete: tuple[Tunnel, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.create or self.update or self.delete)


def route_services(route: GWRoute) -> set[str]:
    """UIDs of the Services that a route sends requests to; one of a type that is not served to none."""
    http, tcp = route.spec.http, route.spec.tcp
    rules = [rule.backend_refs for rule in (http.rules if http else ())]
    rules += [rule.backend_refs for rule in (tcp.rules if tcp else ())]
    return {backend.name for backends in rules for backend in backends}


def route_parents(route: GWRoute) -> set[str]:
    """Names of the gateways that a route attaches to."""
    return {parent.name for parent in route.spec.parent_refs if is_gateway(parent)}


def proxy_services(proxy: str, routes: Iterable[GWRoute]) -> set[str]:
    """UIDs of all Services behind a gateway."""
    return {uid for route in routes if proxy in route_parents(route) for uid in route_services(route)}


def workload_endpoints(
    services: set[str], slices: Iterable[GWEndpointSlice]
) -> dict[WorkloadNode, tuple[Address, set[Address]]]:
    """The nodes that host endpoints of these Services: their address and their endpoints' addresses.

    Readiness does not matter: a tunnel must stand before its endpoint gets ready. An endpoint without
    a node, or on a node without an address, cannot be reached through a tunnel.
    """
    found: dict[WorkloadNode, tuple[Address, set[Address]]] = {}
    for slice_ in sorted(slices, key=lambda s: s.name):
        if slice_.spec.parent_ref.uid not in services:
            continue
        for endpoint in slice_.spec.endpoints:
            address = slice_.spec.node_addresses.get(endpoint.node_name or "")
            if endpoint.node_name and address:
                workload = WorkloadNode(slice_.spec.client_ref.cluster_id, endpoint.node_name)
                _, addresses = found.setdefault(workload, (address, set()))
                addresses.update(filter(None, map(usable, endpoint.addresses)))
    return found


def slice_nodes(slice_: GWEndpointSlice) -> tuple[str, dict[WorkloadNode, Address]]:
    """All of a slice that decides on tunnels: its Service, and the nodes that host endpoints of it."""
    found: dict[WorkloadNode, Address] = {}
    for endpoint in slice_.spec.endpoints:
        address = slice_.spec.node_addresses.get(endpoint.node_name or "")
        if endpoint.node_name and address:
            found[WorkloadNode(slice_.spec.client_ref.cluster_id, endpoint.node_name)] = address
    return slice_.spec.parent_ref.uid, found


def wanted_tunnels(proxy: GWProxy, workloads: Mapping[WorkloadNode, Address]) -> list[WantedTunnel]:
    """One tunnel for each instance of the gateway and each node with endpoints of its Services.

    Node by node, and for those that do not serve yet first: no instance gets ahead of the others.
    """
    instances = sorted((i for i in proxy.status.instances if i.published), key=lambda i: i.announced)
    return [
        WantedTunnel(Connection(proxy.name, instance.node, workload), instance.inside_address, address)
        for workload, address in sorted(workloads.items(), key=lambda item: item[0])
        for instance in instances
    ]


def behind_first(
    wanted: Iterable[WantedTunnel], have: Iterable[Connection], serving: Collection[str]
) -> list[WantedTunnel]:
    """Those first that lead where one of these nodes, which serve, has a tunnel already."""
    reached = {key.workload for key in have if key.epic_node in serving}
    return sorted(wanted, key=lambda tunnel: tunnel.key.workload not in reached)


def within_room(wanted: Sequence[WantedTunnel], stored: Iterable[Tunnel], room: int) -> list[WantedTunnel]:
    """Those of a gateway's wanted tunnels that may be, if it may have some to `room` workload nodes.

    What it has stays, and nodes to which it has some come first.
    """
    have = {key_of(tunnel) for tunnel in stored}
    served = {key.workload for key in have}
    nodes = sorted({w.key.workload for w in wanted}, key=lambda node: (node not in served, node))
    chosen = set(nodes[: max(0, room)])
    return [w for w in wanted if w.key.workload in chosen or w.key in have]


def plan(wanted: Iterable[WantedTunnel], stored: Iterable[Tunnel]) -> TunnelPlan:
    """The difference between the tunnels wanted and those stored, for one gateway.

    A tunnel is never given another inside address: its ends may have the old one when that is another's.
    """
    have = {(key_of(tunnel), tunnel.spec.inside_address): tunnel for tunnel in stored}
    want = {(tunnel.key, tunnel.inside_address): tunnel for tunnel in wanted}
    pairs = [(have[key], _moved(have[key], target)) for key, target in want.items() if key in have]
    return TunnelPlan(
        create=tuple(target for key, target in want.items() if key not in have),
        update=tuple(after for before, after in pairs if after is not before),
        delete=tuple(tunnel for key, tunnel in have.items() if key not in want),
    )


def key_of(tunnel: Tunnel) -> Connection:
    """What a stored tunnel connects."""
    spec = tunnel.spec
    return Connection(spec.proxy, spec.epic_node, WorkloadNode(spec.cluster_id, spec.node_name))


def tunnel_endpoints(tunnels: Iterable[Tunnel], nodes: Mapping[str, Node]) -> dict[str, NodeTunnelEndpoints]:
    """A gateway's `gue-tunnel-endpoints`: workload node address, then EPIC node address, then the tunnel."""
    found: dict[str, dict[str, TunnelEndpoint]] = {}
    for tunnel in sorted(tunnels, key=lambda t: int(t.name)):
        node = nodes.get(tunnel.spec.epic_node)
        if node is not None:
            found.setdefault(str(tunnel.spec.node_address), {})[str(node.spec.address)] = TunnelEndpoint(
                epic_address=node.spec.address, tunnel_id=int(tunnel.name)
            )
    return {
        address: NodeTunnelEndpoints(epic_endpoints=by_node) for address, by_node in sorted(found.items())
    }


def with_kept_endpoints(
    endpoints: Mapping[str, NodeTunnelEndpoints], proxy: GWProxy, unseen: Collection[int]
) -> dict[str, NodeTunnelEndpoints]:
    """The same with what the gateway has of tunnels that cannot be seen now."""
    found = dict(endpoints)
    for address, before in proxy.spec.gue_tunnel_endpoints.items():
        kept = {node: end for node, end in before.epic_endpoints.items() if end.tunnel_id in unseen}
        if kept:
            known = found.get(address, NodeTunnelEndpoints()).epic_endpoints
            found[address] = NodeTunnelEndpoints(epic_endpoints={**kept, **known})
    return dict(sorted(found.items()))


def _moved(stored: Tunnel, target: WantedTunnel) -> Tunnel:
    if stored.spec.node_address == target.node_address:
        return stored
    spec = stored.spec.model_copy(update={"node_address": target.node_address})
    return stored.model_copy(update={"spec": spec})
