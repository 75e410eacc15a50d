# SPDX-License-Identifier: Apache-2.0
"""Routes, slices and tunnels by what they belong to, kept by the store's changes: nobody lists an account."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from epic.kinds import indexes
from epic.kinds.kind import IndexValue
from epic.model.addresses import Address
from epic.model.base import Resource
from epic.model.naming import GatewayId
from epic.model.resources import GWEndpointSlice, GWRoute, Tunnel
from epic.tunnels import WorkloadNode, key_of, proxy_services, route_parents, slice_nodes

R = TypeVar("R", bound=Resource)


class Index(Generic[R]):
    """Objects of a kind by the keys that `keys` finds in them."""

    def __init__(self, kind: type[R], keys: Callable[[R], Iterable[IndexValue]]) -> None:
        self._kind = kind
        self._keys = keys
        self._objects: dict[tuple[str, str], R] = {}
        self._found: dict[IndexValue, dict[tuple[str, str], R]] = {}

    def apply(self, account: str, name: str, obj: Resource | None) -> tuple[R | None, R | None]:
        """Take in an object as it is now (None: it is gone); returns it as it was and as it is."""
        id_ = (account, name)
        old = self._objects.pop(id_, None)
        if old is not None:
            for key in set(self._keys(old)):
                found = self._found[key]
                del found[id_]
                if not found:
                    del self._found[key]
        if not isinstance(obj, self._kind):
            return old, None
        self._objects[id_] = obj
        for key in set(self._keys(obj)):
            self._found.setdefault(key, {})[id_] = obj
        return old, obj

    def of(self, key: IndexValue) -> list[R]:
        """All objects with the key, in order of name."""
        return [obj for _, obj in sorted(self._found.get(key, {}).items())]


class Backends:
    """Which routes lead from gateways to Services, and where their endpoints are."""

    def __init__(self) -> None:
        self._of_gateway = Index(GWRoute, indexes.route_gateways)
        self._to_service = Index(GWRoute, indexes.route_backends)
        self._slices = Index(GWEndpointSlice, lambda _: ())
        self._nodes: dict[str, Counter[WorkloadNode]] = defaultdict(Counter)
        self._hosts: dict[tuple[str, str], dict[WorkloadNode, dict[str, Address]]] = defaultdict(dict)
        """Of each Service the nodes with endpoints, and in which slices they have which address."""
        self._counts: dict[GatewayId, int] = {}
        """How many nodes have endpoints behind a gateway, as far as that was asked and has not changed."""
        self._endpoints: Counter[str] = Counter()

    def apply_route(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in a route."""
        for route in self._of_gateway.apply(account, name, obj):
            for parent in route_parents(route) if route is not None else ():
                self._counts.pop(GatewayId(account, parent), None)
        self._to_service.apply(account, name, obj)

    def apply_slice(self, account: str, name: str, obj: Resource | None) -> None:
        """Take in an EndpointSlice."""
        old, new = self._slices.apply(account, name, obj)
        nodes = self._nodes[account]
        for piece, sign in ((old, -1), (new, 1)):
            if piece is not None:
                self._note_hosts(piece, gone=sign < 0)
                self._endpoints[account] += sign * endpoint_count(piece)
                for node in named_nodes(piece):
                    nodes[node] += sign
                    if not nodes[node]:
                        del nodes[node]

    def routes(self, gateway: GatewayId) -> list[GWRoute]:
        """The routes that attach to a gateway."""
        return self._of_gateway.of(gateway)

    def _note_hosts(self, piece: GWEndpointSlice, *, gone: bool) -> None:
        service, nodes = slice_nodes(piece)
        hosts = self._hosts[piece.account, service]
        for node, address in nodes.items():
            if not gone:
                hosts.setdefault(node, {})[piece.name] = address
                continue
            del hosts[node][piece.name]
            if not hosts[node]:
                del hosts[node]
        if not hosts:
            del self._hosts[piece.account, service]
        for name in self.gateways(piece.account, service):
            self._counts.pop(GatewayId(piece.account, name), None)

    def count_workloads(self, gateway: GatewayId) -> int:
        """How many nodes have endpoints of the gateway's Services."""
        if gateway not in self._counts:
            self._counts[gateway] = len(self.workloads(gateway))
        return self._counts[gateway]

    def workloads(self, gateway: GatewayId) -> dict[WorkloadNode, Address]:
        """The nodes with endpoints of the gateway's Services; the address is that in the first slice."""
        found: dict[WorkloadNode, tuple[str, Address]] = {}
        for service in proxy_services(gateway.proxy, self.routes(gateway)):
            for node, addresses in self._hosts.get((gateway.account, service), {}).items():
                name = min(addresses)
                if node not in found or name < found[node][0]:
                    found[node] = name, addresses[name]
        return {node: address for node, (_, address) in found.items()}

    def gateways(self, account: str, service: str) -> set[str]:
        """The gateways that send requests to a Service."""
        return {
            parent for route in self._to_service.of((account, service)) for parent in route_parents(route)
        }

    def named(self, account: str) -> tuple[int, int]:
        """How many workload nodes and endpoints the account's slices name."""
        return len(self._nodes.get(account, ())), self._endpoints[account]


class Tunnels:
    """The tunnels of gateways and of nodes, those included that were deleted and are not gone."""

    def __init__(self) -> None:
        self._living = Index(Tunnel, lambda t: () if t.deleting else indexes.tunnel_gateway(t))
        self._going = Index(Tunnel, lambda t: (t.account,) if t.deleting else ())
        self._workloads: dict[str, dict[str, Counter[WorkloadNode]]] = defaultdict(dict)
        self._of_account: Counter[str] = Counter()
        self._on_node: Counter[str] = Counter()
        self._share: Counter[tuple[str, str]] = Counter()

    def apply(self, account: str, name: str, obj: Resource | None) -> Tunnel | None:
        """Take in a tunnel; returns it as it was."""
        self._going.apply(account, name, obj)
        old, new = self._living.apply(account, name, obj)
        for tunnel, sign in ((old, -1), (new, 1)):
            if tunnel is not None:
                self._of_account[account] += sign
                self._on_node[tunnel.spec.epic_node] += sign
                self._share[account, tunnel.spec.epic_node] += sign
                if not tunnel.deleting:
                    self._count(tunnel, sign)
        return old

    def _count(self, tunnel: Tunnel, sign: int) -> None:
        of_account = self._workloads[tunnel.account]
        nodes = of_account.setdefault(tunnel.spec.proxy, Counter())
        workload = key_of(tunnel).workload
        nodes[workload] += sign
        if not nodes[workload]:
            del nodes[workload]
        if not nodes:
            del of_account[tunnel.spec.proxy]

    def of(self, gateway: GatewayId) -> list[Tunnel]:
        """A gateway's tunnels that are not deleted."""
        return self._living.of(gateway)

    def going(self, account: str) -> list[Tunnel]:
        """The account's tunnels that were deleted and are not gone."""
        return self._going.of(account)

    def workload_nodes(self, account: str) -> dict[str, int]:
        """To how many workload nodes each gateway of the account has tunnels, as far as it has some."""
        return {name: len(nodes) for name, nodes in self._workloads.get(account, {}).items()}

    def living(self, gateway: GatewayId) -> int:
        """How many tunnels a gateway has that are not deleted."""
        return self._workloads.get(gateway.account, {}).get(gateway.proxy, Counter()).total()

    def total(self, account: str) -> int:
        """How many tunnels the account has."""
        return self._of_account[account]

    def on_node(self, node: str) -> int:
        """How many tunnels an EPIC node has."""
        return self._on_node[node]

    def share(self, account: str, node: str) -> int:
        """How many of them are the account's."""
        return self._share[account, node]


def named_nodes(piece: GWEndpointSlice) -> set[WorkloadNode]:
    """The workload nodes that a slice gives addresses of."""
    return {WorkloadNode(piece.spec.client_ref.cluster_id, name) for name in piece.spec.node_addresses}


def endpoint_count(piece: GWEndpointSlice) -> int:
    """How many addresses the endpoints of a slice have."""
    return sum(len(endpoint.addresses) for endpoint in piece.spec.endpoints)
