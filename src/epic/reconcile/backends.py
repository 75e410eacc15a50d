# SPDX-License-Identifier: Apache-2.0
"""To which Services gateways send requests, and on which nodes these have endpoints."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple, TypeVar

from epic.model.addresses import Address
from epic.model.base import Resource
from epic.model.naming import GatewayId
from epic.model.resources import GWEndpointSlice, GWRoute
from epic.tunnels import WorkloadNode, route_parents, route_services, slice_nodes

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Service(NamedTuple):
    account: str
    uid: str


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
        self._services: dict[GatewayId, Counter[_Service]] = {}
        """How many of a gateway's routes lead to a Service."""
        self._gateways: dict[_Service, set[GatewayId]] = {}
        self._hosts: dict[_Service, dict[WorkloadNode, dict[str, Address]]] = {}
        """The nodes with endpoints of a Service, and which address its slices give for each."""
        self._workloads: dict[GatewayId, Counter[WorkloadNode]] = {}
        """How many of a gateway's Services have endpoints on a node."""
        self._named: dict[str, Counter[WorkloadNode]] = defaultdict(Counter)
        self._endpoints: Counter[str] = Counter()
        self._owned: dict[str, Counter[str]] = {}
        """How many objects of a kind an account has."""

    def apply_gateway(self, gateway: GatewayId, *, exists: bool) -> None:
        """Take in that a gateway exists, or does not any more."""
        if exists == (gateway in self._existing):
            return
        if exists:
            self._existing.add(gateway)
        for name in self._attached.get(gateway, ()):
            for service in _services(gateway.account, self._routes[gateway.account, name]):
                self._link(gateway, service, 1 if exists else -1)
        if not exists:
            self._existing.discard(gateway)

    def apply_route(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in a route."""
        old, new = self._routes.pop((account, name), None), None
        if isinstance(obj, GWRoute):
            self._routes[account, name] = new = obj
        self._count_owned(account, GWRoute.kind, old, new)
        before, after = _parents(account, old), _parents(account, new)
        for gateway in before - after:
            _discard(self._attached, gateway, name)
        for gateway in after - before:
            self._attached.setdefault(gateway, set()).add(name)
        links_before, links_after = self._links(account, old), self._links(account, new)
        for gateway, service in links_before - links_after:
            self._link(gateway, service, -1)
        for gateway, service in links_after - links_before:
            self._link(gateway, service, 1)

    def _count_owned(self, account: str, kind: str, old: Resource | None, new: Resource | None) -> None:
        if (old is None) != (new is None):
            _count(self._owned, account, kind, -1 if new is None else 1)

    def owned(self, account: str, kind: str) -> int:
        """How many routes or EndpointSlices the account has."""
        found = self._owned.get(account)
        return found[kind] if found else 0

    def _links(self, account: str, route: GWRoute | None) -> set[tuple[GatewayId, _Service]]:
        if route is None:
            return set()
        services = _services(account, route)
        return {
            (parent, service) for parent in _parents(account, route) & self._existing for service in services
        }

    def _link(self, gateway: GatewayId, service: _Service, sign: int) -> None:
        """One of the gateway's routes more, or less, leads to the Service."""
        if not _count(self._services, gateway, service, sign):
            return
        if sign > 0:
            self._gateways.setdefault(service, set()).add(gateway)
        else:
            _discard(self._gateways, service, gateway)
        for node in self._hosts.get(service, ()):
            _count(self._workloads, gateway, node, sign)

    def apply_slice(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in an EndpointSlice."""
        old, new = self._slices.pop((account, name), None), None
        if isinstance(obj, GWEndpointSlice):
            self._slices[account, name] = new = obj
        self._count_owned(account, GWEndpointSlice.kind, old, new)
        for piece, sign in ((old, -1), (new, 1)):
            if piece is not None:
                self._endpoints[account] += sign * endpoint_count(piece)
                for node in named_nodes(piece):
                    _count(self._named, account, node, sign)
        before, after = _hosts(account, old), _hosts(account, new)
        for (service, node), address in after.items():
            slices = self._hosts.setdefault(service, {}).setdefault(node, {})
            if not slices:
                self._count_host(service, node, 1)
            slices[name] = address
        for service, node in before.keys() - after.keys():
            slices = self._hosts[service][node]
            del slices[name]
            if not slices:
                del self._hosts[service][node]
                self._count_host(service, node, -1)
            if not self._hosts[service]:
                del self._hosts[service]

    def _count_host(self, service: _Service, node: WorkloadNode, sign: int) -> None:
        for gateway in self._gateways.get(service, ()):
            _count(self._workloads, gateway, node, sign)

    def count_workloads(self, gateway: GatewayId) -> int:
        """How many nodes have endpoints of the gateway's Services."""
        return len(self._workloads.get(gateway, ()))

    def workloads(self, gateway: GatewayId) -> dict[WorkloadNode, Address]:
        """The nodes with endpoints of the gateway's Services; the address is that in the first slice."""
        found: dict[WorkloadNode, tuple[str, Address]] = {}
        for service in self._services.get(gateway, ()):
            for node, addresses in self._hosts.get(service, {}).items():
                name = min(addresses)
                if node not in found or name < found[node][0]:
                    found[node] = name, addresses[name]
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
    """How many endpoints a slice counts for: its addresses, or its ports if these are more."""
    return max(sum(len(endpoint.addresses) for endpoint in piece.spec.endpoints), len(piece.spec.ports))


def _parents(account: str, route: GWRoute | None) -> set[GatewayId]:
    return {GatewayId(account, parent) for parent in route_parents(route)} if route is not None else set()


def _services(account: str, route: GWRoute) -> list[_Service]:
    return [_Service(account, uid) for uid in route_services(route)]


def _hosts(account: str, piece: GWEndpointSlice | None) -> dict[tuple[_Service, WorkloadNode], Address]:
    if piece is None:
        return {}
    uid, nodes = slice_nodes(piece)
    return {(_Service(account, uid), node): address for node, address in nodes.items()}


def _count(counters: dict[_K, Counter[_V]], key: _K, value: _V, sign: int) -> bool:
    """Whether that was the first of this value, or the last."""
    counter = counters.get(key)
    if counter is None:
        counter = counters[key] = Counter()
    counter[value] += sign
    if counter[value]:
        return sign > 0 and counter[value] == 1
    del counter[value]
    if not counter:
        del counters[key]
    return True


def _discard(groups: dict[_K, set[_V]], key: _K, value: _V) -> None:
    groups[key].discard(value)
    if not groups[key]:
        del groups[key]
