# SPDX-License-Identifier: Apache-2.0
"""What each workload node of an account is to be told, kept at the cost of each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from epic.errors import Unavailable
from epic.model.base import Resource
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.model.values.addresses import Address, usable
from epic.reconcile.counts.counting import count, count_in
from epic.reconcile.unreadable import UnreadableObjects
from epic.store.interface import Change
from epic.store.objects import Unreadable
from epic.tunnels import WorkloadNode, key_of, route_parents, route_services

KINDS: tuple[type[Resource], ...] = (Node, GWRoute, GWEndpointSlice, Tunnel)
"""What matters here."""


@dataclass(frozen=True)
class Told:
    """What a workload node is to be told; nothing of it changes any more."""

    tunnels: tuple[Tunnel, ...]
    """All that end there, those included that were deleted and are not gone."""
    epic_addresses: Mapping[str, Address]
    """By name, those of the EPIC nodes that they come from, as far as these are there."""
    endpoints: Mapping[str, tuple[frozenset[Address], ...]]
    """By gateway that has a tunnel, the endpoints there of its Services; one may be in several parts."""


class _Route(NamedTuple):
    parents: set[str]
    services: set[str]


class _Slice(NamedTuple):
    service: str
    hosted: dict[WorkloadNode, frozenset[Address]]


_UNREADABLE = "what is behind the tunnels cannot be read now; the platform's operators can see why"
_NO_ROUTE = _Route(set(), set())
_NO_SLICE = _Slice("", {})


class WorkloadIndex:
    """Of routes' parents only those count that have tunnels: who writes routes can name any number."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._routes: dict[str, _Route] = {}
        self._slices: dict[str, _Slice] = {}
        self._tunnels: dict[str, Tunnel] = {}
        self._epic_addresses: dict[str, Address] = {}
        self._ending: dict[WorkloadNode, dict[str, Tunnel]] = {}
        self._from: dict[str, Counter[WorkloadNode]] = {}
        """By EPIC node, how many tunnels it has to each workload node."""
        self._reached: dict[str, Counter[WorkloadNode]] = {}
        """The same by gateway, and without those that were deleted."""
        self._services: dict[str, Counter[str]] = {}
        """Of each gateway with tunnels, how many of its routes lead to a Service."""
        self._hosted: dict[WorkloadNode, dict[str, dict[str, frozenset[Address]]]] = {}
        """The endpoints on each node by Service and slice."""
        self._hosts: dict[str, Counter[WorkloadNode]] = {}
        """By Service, how many slices have endpoints on each node."""
        self._unreadable = UnreadableObjects()

    def apply(self, change: Change) -> set[WorkloadNode]:
        """Take in a change; returns the workload nodes that may be to be told something else."""
        was_unreadable = self._unreadable.release(change.kind, change.account, change.name)
        touched = self._apply(change)
        return touched | self._ending.keys() if was_unreadable else touched

    def hold_unreadable(self, found: Iterable[Unreadable], proxies: Iterable[GWProxy]) -> None:
        """These objects are there, whatever they say. Its gateways say how EPIC nodes are reached."""
        for unreadable in found:
            self._unreadable.hold(unreadable)
        ends = (ends for proxy in proxies for ends in proxy.spec.gue_tunnel_endpoints.values())
        addresses = {end.tunnel_id: end.epic_address for e in ends for end in e.epic_endpoints.values()}
        for tunnel in self._tunnels.values():
            name = tunnel.spec.epic_node
            if self._unreadable.has(Node, "", name) and int(tunnel.name) in addresses:
                self._epic_addresses[name] = addresses[int(tunnel.name)]

    def _apply(self, change: Change) -> set[WorkloadNode]:
        if change.kind == Node.kind:
            return self._apply_node(change.name, change.object)
        if change.account != self._account:
            return set()
        match change.kind:
            case GWRoute.kind:
                return self._apply_route(change.name, change.object)
            case GWEndpointSlice.kind:
                return self._apply_slice(change.name, change.object)
            case Tunnel.kind:
                return self._apply_tunnel(change.name, change.object)
        return set()

    def note(self, obj: Resource) -> set[WorkloadNode]:
        """Take in an object as it is now."""
        return self.apply(Change(obj.metadata.resource_version, obj.kind, obj.account, obj.name, obj))

    def told(self, workload: WorkloadNode) -> Told:
        """What this node is to be told; raises Unavailable while something of that cannot be read."""
        if self._unreadable.has_any(self._account, Tunnel, GWEndpointSlice):
            raise Unavailable(_UNREADABLE)
        tunnels = tuple(self._ending.get(workload, {}).values())
        hosted = self._hosted.get(workload, {})
        nodes = {tunnel.spec.epic_node for tunnel in tunnels}
        if any(self._unreadable.has(Node, "", name) for name in nodes - self._epic_addresses.keys()):
            raise Unavailable(_UNREADABLE)
        nodes &= self._epic_addresses.keys()
        endpoints = {}
        for gateway in {tunnel.spec.proxy for tunnel in tunnels if not tunnel.deleting}:
            services = self._services[gateway]
            parts = (
                part
                for uid, by_slice in hosted.items()
                if uid in services or self._is_blind
                for part in by_slice.values()
            )
            endpoints[gateway] = tuple(parts)
        return Told(tunnels, {name: self._epic_addresses[name] for name in nodes}, endpoints)

    @property
    def _is_blind(self) -> bool:
        """Whether it is not known where all routes lead: then rather more is told than less."""
        return self._unreadable.has_any(self._account, GWRoute)

    def _apply_node(self, name: str, obj: Resource | None) -> set[WorkloadNode]:
        before = self._epic_addresses.pop(name, None)
        if isinstance(obj, Node):
            self._epic_addresses[name] = obj.spec.address
        return set(self._from.get(name, ())) if before != self._epic_addresses.get(name) else set()

    def _apply_route(self, name: str, obj: Resource | None) -> set[WorkloadNode]:
        old, new = self._routes.pop(name, _NO_ROUTE), _NO_ROUTE
        if isinstance(obj, GWRoute):
            self._routes[name] = new = _Route(route_parents(obj), route_services(obj))
        touched: set[WorkloadNode] = set()
        hosts: dict[frozenset[str], set[WorkloadNode]] = {}
        for gateway in (old.parents | new.parents) & self._services.keys():
            before = old.services if gateway in old.parents else set()
            after = new.services if gateway in new.parents else set()
            services = self._services[gateway]
            changed = frozenset(uid for uid in before - after if count(services, uid, -1))
            changed |= {uid for uid in after - before if count(services, uid, 1)}
            if changed not in hosts:
                hosts[changed] = set().union(*(self._hosts.get(uid, ()) for uid in changed))
            touched |= hosts[changed] & self._reached[gateway].keys()
        return touched

    def _apply_slice(self, name: str, obj: Resource | None) -> set[WorkloadNode]:
        old, new = self._slices.pop(name, _NO_SLICE), _NO_SLICE
        if isinstance(obj, GWEndpointSlice):
            self._slices[name] = new = _Slice(obj.spec.parent_ref.uid, _hosted(obj))
        moved = old.service != new.service
        gone = [node for node in old.hosted if moved or node not in new.hosted]
        other = [node for node, found in new.hosted.items() if moved or old.hosted.get(node) != found]
        for node in gone:
            self._unhost(old.service, node, name)
        for node in other:
            if moved or node not in old.hosted:
                count_in(self._hosts, new.service, node, 1)
            self._hosted.setdefault(node, {}).setdefault(new.service, {})[name] = new.hosted[node]
        return self._reached_by(old.service, gone) | self._reached_by(new.service, other)

    def _unhost(self, service: str, node: WorkloadNode, name: str) -> None:
        count_in(self._hosts, service, node, -1)
        by_service = self._hosted[node]
        del by_service[service][name]
        if not by_service[service]:
            del by_service[service]
        if not by_service:
            del self._hosted[node]

    def _reached_by(self, service: str, nodes: list[WorkloadNode]) -> set[WorkloadNode]:
        """Those of the nodes that a gateway which sends requests to the Service has a tunnel to."""
        if self._is_blind:
            return set(nodes)
        gateways = [name for name, services in self._services.items() if service in services] if nodes else []
        return {node for node in nodes if any(node in self._reached[gateway] for gateway in gateways)}

    def _apply_tunnel(self, name: str, obj: Resource | None) -> set[WorkloadNode]:
        old, new = self._tunnels.pop(name, None), obj if isinstance(obj, Tunnel) else None
        if old is not None:
            self._count_tunnel(old, -1)
            ending = self._ending[key_of(old).workload]
            del ending[name]
            if not ending:
                del self._ending[key_of(old).workload]
        if new is not None:
            self._tunnels[name] = new
            self._count_tunnel(new, 1)
            self._ending.setdefault(key_of(new).workload, {})[name] = new
        for gateway in {tunnel.spec.proxy for tunnel in (old, new) if tunnel is not None}:
            if gateway not in self._reached:
                self._services.pop(gateway, None)
            elif gateway not in self._services:
                self._services[gateway] = self._services_of(gateway)
        return {key_of(tunnel).workload for tunnel in (old, new) if tunnel is not None}

    def _count_tunnel(self, tunnel: Tunnel, sign: int) -> None:
        workload = key_of(tunnel).workload
        count_in(self._from, tunnel.spec.epic_node, workload, sign)
        if not tunnel.deleting:
            count_in(self._reached, tunnel.spec.proxy, workload, sign)

    def _services_of(self, gateway: str) -> Counter[str]:
        routes = (route.services for route in self._routes.values() if gateway in route.parents)
        return Counter(uid for services in routes for uid in services)


def _hosted(piece: GWEndpointSlice) -> dict[WorkloadNode, frozenset[Address]]:
    """A slice's endpoints on each workload node, as far as tunnels lead to them."""
    found: dict[str, set[Address]] = {}
    for endpoint in piece.spec.endpoints:
        if endpoint.node_name and endpoint.node_name in piece.spec.node_addresses:
            found.setdefault(endpoint.node_name, set()).update(filter(None, map(usable, endpoint.addresses)))
    cluster = piece.spec.client_ref.cluster_id
    return {WorkloadNode(cluster, name): frozenset(there) for name, there in found.items() if there}
