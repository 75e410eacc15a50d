# SPDX-License-Identifier: Apache-2.0
"""The store's objects in memory, kept by its changes, with the look-ups that translation needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from epic.envoy.endpoints import TargetPorts
from epic.model.base import Resource
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
from epic.store.interface import Change, R
from epic.tunnels import proxy_services, route_parents, route_services

KINDS: tuple[type[Resource], ...] = (GWProxy, GWRoute, GWEndpointSlice, Tunnel, LBServiceGroup, Node)
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


class ObjectIndex:
    """Objects by kind, account and name."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], dict[str, Resource]] = defaultdict(dict)
        # A slice may have 20,000: they are gone through when it changes, not with each change of a gateway.
        self._ports: dict[tuple[str, str], TargetPorts] = {}

    def gateways(self) -> list[GatewayId]:
        """All gateways."""
        return sorted(
            proxy.id
            for (kind, _), objects in self._objects.items()
            if kind == GWProxy.kind
            for proxy in objects.values()
            if isinstance(proxy, GWProxy)
        )

    def proxy(self, gateway: GatewayId) -> GWProxy | None:
        """A gateway's object."""
        found = self._objects[GWProxy.kind, gateway.account].get(gateway.proxy)
        return found if isinstance(found, GWProxy) else None

    def node(self, name: str) -> Node | None:
        """An EPIC node's object."""
        found = self._objects[Node.kind, ""].get(name)
        return found if isinstance(found, Node) else None

    def nodes(self) -> list[Node]:
        """All EPIC nodes."""
        return self._all(Node, "")

    def inputs(self, gateway: GatewayId) -> Inputs | None:
        """What the gateway's resources are made of; None without the gateway."""
        proxy = self.proxy(gateway)
        if proxy is None:
            return None
        account = gateway.account
        routes = tuple(r for r in self._all(GWRoute, account) if gateway.proxy in route_parents(r))
        services = proxy_services(gateway.proxy, routes)
        slices = tuple(s for s in self._all(GWEndpointSlice, account) if s.spec.parent_ref.uid in services)
        group = self._objects[LBServiceGroup.kind, account].get(proxy.spec.group)
        return Inputs(
            proxy=proxy,
            routes=routes,
            slices=slices,
            tunnels=tuple(t for t in self._all(Tunnel, account) if t.spec.proxy == gateway.proxy),
            templates=_templates(group),
            ports={s.name: self._ports[account, s.name] for s in slices},
        )

    def apply(self, change: Change) -> set[GatewayId]:
        """Take in a change; returns the gateways whose resources it may touch."""
        if change.kind not in {kind.kind for kind in KINDS}:
            return set()
        objects = self._objects[change.kind, change.account]
        old = objects.pop(change.name, None)
        if change.object is not None:
            objects[change.name] = change.object
        self._keep_ports(change)
        touched = [o for o in (old, change.object) if o is not None]
        return {GatewayId(change.account, name) for o in touched for name in self._touched(o)}

    def _keep_ports(self, change: Change) -> None:
        if isinstance(change.object, GWEndpointSlice):
            self._ports[change.account, change.name] = TargetPorts(change.object.spec.ports)
        elif change.kind == GWEndpointSlice.kind:
            self._ports.pop((change.account, change.name), None)

    def _touched(self, obj: Resource) -> Iterable[str]:
        if isinstance(obj, GWProxy):
            return [obj.name]
        if isinstance(obj, GWRoute):
            return route_parents(obj)
        if isinstance(obj, Tunnel):
            return [obj.spec.proxy]
        if isinstance(obj, GWEndpointSlice):
            uid = obj.spec.parent_ref.uid
            routes = [r for r in self._all(GWRoute, obj.account) if uid in route_services(r)]
            return {name for route in routes for name in route_parents(route)}
        if isinstance(obj, LBServiceGroup):
            return [p.name for p in self._all(GWProxy, obj.account) if p.spec.group == obj.name]
        return []

    def _all(self, kind: type[R], account: str) -> list[R]:
        objects = self._objects[kind.kind, account]
        return [o for _, o in sorted(objects.items()) if isinstance(o, kind)]


def _templates(group: Resource | None) -> EnvoyResources:
    if isinstance(group, LBServiceGroup):
        return group.spec.envoy_template.envoy_resources
    return EnvoyResources()
