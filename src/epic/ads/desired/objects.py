# SPDX-License-Identifier: Apache-2.0
"""The store's objects in memory, kept by its changes, with the look-ups that translation needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from epic.gatewayapi.target_ports import TargetPorts
from epic.kinds import indexes
from epic.kinds.index import Index
from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.resources import (
    EnvoyResources,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    Tunnel,
)
from epic.model.values.naming import GatewayId
from epic.store.interface import Change
from epic.tunnels import proxy_services, route_parents

KINDS: tuple[type[Resource], ...] = (
    GWProxy,
    GWMember,
    GWRoute,
    GWEndpointSlice,
    Tunnel,
    LBServiceGroup,
    Node,
)
"""What is looked at; other kinds do not matter here."""


@dataclass(frozen=True)
class Inputs:
    """All that a gateway's resources are made of, each list in order of name."""

    proxy: GWProxy
    routes: tuple[GWRoute, ...]
    slices: tuple[GWEndpointSlice, ...]
    tunnels: tuple[Tunnel, ...]
    templates: EnvoyResources
    ports: Mapping[str, TargetPorts]
    """Those of the slices, by name."""
    kept: frozenset[str] = frozenset()
    """Services of the configuration that is kept while it is not known to which ones the routes lead."""
    unseen: frozenset[str] = frozenset()
    """Services of which not all slices can be read."""
    members: tuple[GWMember, ...] = ()
    """Who shares the gateway."""

    @cached_property
    def services(self) -> frozenset[str]:
        """The Services behind the gateway."""
        return self.kept | proxy_services(self.proxy.name, self.routes)

    @cached_property
    def tunnel_names(self) -> frozenset[str]:
        """The tunnels that EPIC nodes are to have."""
        return frozenset(tunnel.name for tunnel in self.tunnels if not tunnel.deleting)


class ObjectIndex:
    """Objects by kind, account and name, and by the gateways that they matter to: no account is listed."""

    def __init__(self) -> None:
        self._proxies = Index(GWProxy, indexes.proxy_group)
        self._members = Index(GWMember, indexes.member_gateway)
        self._routes = Index(GWRoute, indexes.route_gateways)
        self._backends = Index(GWRoute, indexes.route_backends)
        self._slices = Index(GWEndpointSlice, indexes.slice_service)
        self._tunnels = Index(Tunnel, indexes.tunnel_gateway)
        self._groups = Index(LBServiceGroup)
        self._nodes = Index(Node)
        self._of_kind: dict[str, tuple[Index[Any], ...]] = {
            GWProxy.kind: (self._proxies,),
            GWMember.kind: (self._members,),
            GWRoute.kind: (self._routes, self._backends),
            GWEndpointSlice.kind: (self._slices,),
            Tunnel.kind: (self._tunnels,),
            LBServiceGroup.kind: (self._groups,),
            Node.kind: (self._nodes,),
        }
        # A slice may have 20,000: they are gone through when it changes, not with each change of a gateway.
        self._ports: dict[tuple[str, str], TargetPorts] = {}
        # A gateway may have 16,384: they are put in order when one of them changes.
        self._ordered: dict[GatewayId, tuple[Tunnel, ...]] = {}

    def gateways(self) -> list[GatewayId]:
        """All gateways."""
        return sorted(proxy.id for proxy in self._proxies.all())

    def proxy(self, gateway: GatewayId) -> GWProxy | None:
        """A gateway's object."""
        return self._proxies.find(*gateway)

    def node(self, name: str) -> Node | None:
        """An EPIC node's object."""
        return self._nodes.find("", name)

    def nodes(self) -> list[Node]:
        """All EPIC nodes."""
        return sorted(self._nodes.all(), key=attrgetter("name"))

    def is_backend(self, account: str, uid: str) -> bool:
        """Whether a route of the account leads to the Service."""
        return bool(self._backends.of((account, uid)))

    def inputs(self, gateway: GatewayId, kept: frozenset[str] = frozenset()) -> Inputs | None:
        """What the gateway's resources are made of; None without the gateway.

        `kept` are Services that count as behind it, whatever its routes say.
        """
        proxy = self.proxy(gateway)
        if proxy is None:
            return None
        account = gateway.account
        routes = tuple(self._routes.of(gateway))
        services = kept | proxy_services(gateway.proxy, routes)
        slices = [piece for uid in services for piece in self._slices.of((account, uid))]
        slices.sort(key=attrgetter("name"))
        return Inputs(
            proxy=proxy,
            routes=routes,
            slices=tuple(slices),
            tunnels=self._tunnels_of(gateway),
            templates=_templates(self._groups.find(account, proxy.spec.group)),
            ports={s.name: self._ports[account, s.name] for s in slices},
            kept=kept,
            members=tuple(self._members.of(gateway)),
        )

    def apply(self, change: Change) -> set[GatewayId]:
        """Take in a change; returns the gateways whose resources it may touch."""
        touched: set[GatewayId] = set()
        for index in self._of_kind.get(change.kind, ()):
            for obj in index.apply(change.account, change.name, change.object):
                if obj is not None:
                    touched |= {GatewayId(change.account, name) for name in self._touched(obj)}
        if change.kind == Tunnel.kind or change.object is None:
            for gateway in touched:
                self._ordered.pop(gateway, None)
        self._keep_ports(change)
        return touched

    def _tunnels_of(self, gateway: GatewayId) -> tuple[Tunnel, ...]:
        if gateway not in self._ordered:
            self._ordered[gateway] = tuple(self._tunnels.of(gateway))
        return self._ordered[gateway]

    def _keep_ports(self, change: Change) -> None:
        if isinstance(change.object, GWEndpointSlice):
            self._ports[change.account, change.name] = TargetPorts(change.object.spec.ports)
        elif change.kind == GWEndpointSlice.kind:
            self._ports.pop((change.account, change.name), None)

    def _touched(self, obj: Resource) -> Iterable[str]:
        match obj:
            case GWProxy():
                names: Iterable[str] = [obj.name]
            case GWMember():
                names = [obj.spec.sharing_key]
            case GWRoute():
                names = route_parents(obj)
            case Tunnel():
                names = [obj.spec.proxy]
            case GWEndpointSlice():
                routes = self._backends.of((obj.account, obj.spec.parent_ref.uid))
                names = {name for route in routes for name in route_parents(route)}
            case LBServiceGroup():
                names = [proxy.name for proxy in self._proxies.of((obj.account, obj.name))]
            case _:
                names = []
        return names


def _templates(group: LBServiceGroup | None) -> EnvoyResources:
    return group.spec.envoy_template.envoy_resources if group is not None else EnvoyResources()
