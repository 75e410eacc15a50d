# SPDX-License-Identifier: Apache-2.0
"""To which Services gateways send requests, and on which nodes these have endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from epic.model.base import Resource
from epic.model.resources import GWEndpointSlice, GWRoute
from epic.model.values.addresses import Address
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.counting import add, count, count_in, discard
from epic.reconcile.counts.node_endpoints import NodeEndpoints
from epic.tunnels import WorkloadNode, route_parents, route_services, slice_nodes

_V = TypeVar("_V")
_SETS_KEPT = 32
"""Of Services, for an account."""


class _Service(NamedTuple):
    account: str
    uid: str


class _Host(NamedTuple):
    """What a slice says of a workload node: its address, and how many endpoints it has there, at least 1."""

    address: Address
    endpoints: int


class Backends:
    """What a change touches is counted anew, and nothing else: a gateway may have ten thousand routes.

    Of gateways that do not exist only their routes are kept: who writes routes can name any number of them.
    """

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], GWRoute] = {}
        self._slices: dict[tuple[str, str], GWEndpointSlice] = {}
        self._existing: set[GatewayId] = set()
        self._attached: dict[GatewayId, set[str]] = {}
        """The names of the routes with this parent, whether it exists or not."""
        self._services: dict[GatewayId, Counter[str]] = {}
        """How many of a gateway's routes lead to a Service."""
        self._gateways: dict[_Service, set[GatewayId]] = {}
        self._hosts: dict[_Service, dict[str, dict[WorkloadNode, _Host]]] = {}
        """What each slice of a Service says of the nodes with its endpoints."""
        self._workloads: dict[str, dict[frozenset[str], Mapping[WorkloadNode, Address]]] = {}
        """By account, the nodes with endpoints of these Services, as far as somebody has asked."""
        self.endpoints = NodeEndpoints()
        self._named: dict[str, Counter[WorkloadNode]] = {}
        self._endpoints: Counter[str] = Counter()
        self._owned: dict[str, Counter[str]] = {}
        """How many objects of a kind an account has."""

    def apply_gateway(self, gateway: GatewayId, *, exists: bool) -> None:
        """Take in that a gateway exists, or does not any more."""
        if exists == (gateway in self._existing):
            return
        routes = (self._routes[gateway.account, name] for name in self._attached.get(gateway, ()))
        leading = Counter(uid for route in routes for uid in route_services(route))
        if exists:
            self._existing.add(gateway)
        else:
            self._existing.discard(gateway)
        self._workloads.pop(gateway.account, None)
        self._link({gateway}, leading, 1 if exists else -1)

    def apply_route(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in a route."""
        old, new = self._routes.pop((account, name), None), None
        if isinstance(obj, GWRoute):
            self._routes[account, name] = new = obj
        self._count_owned(account, GWRoute.kind, old, new)
        before, after = _parents(account, old), _parents(account, new)
        for gateway in before - after:
            discard(self._attached, gateway, name)
        for gateway in after - before:
            add(self._attached, gateway, name)
        had, has = _services(old), _services(new)
        for gateways, fewer, more in (
            (before & after, had - has, has - had),
            (before - after, had, set()),
            (after - before, set(), has),
        ):
            self._link(gateways & self._existing, Counter(fewer), -1)
            self._link(gateways & self._existing, Counter(more), 1)

    def _count_owned(self, account: str, kind: str, old: Resource | None, new: Resource | None) -> None:
        if (old is None) != (new is None):
            count_in(self._owned, account, kind, -1 if new is None else 1)

    def owned(self, account: str, kind: str) -> int:
        """How many routes or EndpointSlices the account has."""
        found = self._owned.get(account)
        return found[kind] if found else 0

    def _link(self, gateways: set[GatewayId], leading: Mapping[str, int], sign: int) -> None:
        """So many routes of each of these gateways more, or less, lead to Services.

        All gateways of an account together: where the same Services come to several, or leave them, their
        endpoints are summed up once.
        """
        behind: dict[frozenset[str], Counter[WorkloadNode]] = {}
        for gateway in gateways:
            changed = frozenset(
                uid
                for uid, routes in leading.items()
                if count_in(self._services, gateway, uid, sign * routes)
            )
            for uid in changed:
                (add if sign > 0 else discard)(self._gateways, _Service(gateway.account, uid), gateway)
            if changed not in behind:
                behind[changed] = self._count_hosted(gateway.account, changed)
            for node, number in behind[changed].items():
                self.endpoints.change(gateway, node, sign * number)

    def _count_hosted(self, account: str, services: Iterable[str]) -> Counter[WorkloadNode]:
        """How many endpoints of these Services are on each workload node."""
        found: Counter[WorkloadNode] = Counter()
        for uid in services:
            for hosts in self._hosts.get(_Service(account, uid), {}).values():
                for node, host in hosts.items():
                    found[node] += host.endpoints
        return found

    def apply_slice(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in an EndpointSlice."""
        old, new = self._slices.pop((account, name), None), None
        if isinstance(obj, GWEndpointSlice):
            self._slices[account, name] = new = obj
        self._count_owned(account, GWEndpointSlice.kind, old, new)
        for piece, sign in ((old, -1), (new, 1)):
            if piece is not None:
                count(self._endpoints, account, sign * endpoint_count(piece))
                for node in named_nodes(piece):
                    count_in(self._named, account, node, sign)
        self._workloads.pop(account, None)
        before, after = _hosts(account, old), _hosts(account, new)
        for service in {service for service, _ in before}:
            del self._hosts[service][name]
            if not self._hosts[service]:
                del self._hosts[service]
        for (service, node), host in after.items():
            self._hosts.setdefault(service, {}).setdefault(name, {})[node] = host
        for key in before.keys() | after.keys():
            number = _endpoints(after, key) - _endpoints(before, key)
            for gateway in self._gateways.get(key[0], ()) if number else ():
                self.endpoints.change(gateway, key[1], number)

    def count_workloads(self, gateway: GatewayId) -> int:
        """How many nodes have endpoints of the gateway's Services."""
        return self.endpoints.count_workloads(gateway)

    def workloads(self, gateway: GatewayId) -> Mapping[WorkloadNode, Address]:
        """The nodes with endpoints of the gateway's Services; the address is that in the first slice.

        Gateways with the same Services have the same.
        """
        services = frozenset(self._services.get(gateway, ()))
        known = self._workloads.setdefault(gateway.account, {}) if services else {}
        if services not in known:
            if len(known) >= _SETS_KEPT:
                known.clear()
            known[services] = self._find_workloads(gateway.account, services)
        return known[services]

    def _find_workloads(self, account: str, services: Iterable[str]) -> Mapping[WorkloadNode, Address]:
        found: dict[WorkloadNode, tuple[str, Address]] = {}
        for uid in services:
            for name, hosts in self._hosts.get(_Service(account, uid), {}).items():
                for node, host in hosts.items():
                    if node not in found or name < found[node][0]:
                        found[node] = name, host.address
        return {node: address for node, (_, address) in found.items()}

    def gateways(self, account: str, service: str) -> set[str]:
        """The gateways there are that send requests to a Service."""
        return {gateway.proxy for gateway in self._gateways.get(_Service(account, service), ())}

    def named(self, account: str) -> tuple[int, int]:
        """How many workload nodes and endpoints the account's slices name."""
        return len(self._named.get(account, ())), self._endpoints[account]


def named_nodes(piece: GWEndpointSlice) -> set[WorkloadNode]:
    """The workload nodes that a slice gives addresses of."""
    return {WorkloadNode(piece.spec.client_ref.cluster_id, name) for name in piece.spec.node_addresses}


def endpoint_count(piece: GWEndpointSlice) -> int:
    """How many endpoints a slice counts for: its addresses, or its ports if these are more.

    One without an address is one: whoever is on a node for a Service is looked at with each that changes.
    """
    return max(sum(max(1, len(e.addresses)) for e in piece.spec.endpoints), len(piece.spec.ports))


def _parents(account: str, route: GWRoute | None) -> set[GatewayId]:
    return {GatewayId(account, parent) for parent in route_parents(route)} if route is not None else set()


def _services(route: GWRoute | None) -> set[str]:
    return route_services(route) if route is not None else set()


def _hosts(account: str, piece: GWEndpointSlice | None) -> dict[tuple[_Service, WorkloadNode], _Host]:
    if piece is None:
        return {}
    uid, nodes = slice_nodes(piece)
    counts: Counter[str | None] = Counter()
    for endpoint in piece.spec.endpoints:
        counts[endpoint.node_name] += len(endpoint.addresses)
    service = _Service(account, uid)
    return {
        (service, _one_of(node)): _one_of(_Host(address, max(1, counts[node.name])))
        for node, address in nodes.items()
    }


# Each slice of an account names the same nodes, and many have as many endpoints there as others.
@lru_cache(maxsize=32_768, typed=True)
def _one_of(value: _V) -> _V:
    """The first of its equals."""
    return value


def _endpoints(
    hosts: Mapping[tuple[_Service, WorkloadNode], _Host], key: tuple[_Service, WorkloadNode]
) -> int:
    host = hosts.get(key)
    return host.endpoints if host is not None else 0
