# SPDX-License-Identifier: Apache-2.0
"""Which routes their gateways have no room for, as those who ask for a route are told.

It is reckoned from the stored objects, as for the nodes. That of a gateway is kept until it, a route of it or
the namespaces of those who share it are others: a route's owner may ask as often as he likes, and a gateway
may have thousands of routes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from epic.gatewayapi.attached.routes import left_out
from epic.gatewayapi.namespaces import own_namespaces
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.naming import GatewayId
from epic.store.interface import Reader

_KEPT = 256
"""Gateways; those that were asked for last."""


_Version = tuple[str, int]
"""Of a route: the objects themselves are not kept, they may be large and gone."""


class _Known(NamedTuple):
    basis: tuple[object, ...]
    routes: tuple[_Version, ...]
    left_out: Mapping[str, str]


class _Gateway:
    """What is known of one gateway. One thread at a time reckons it: those who wait take what it found."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.known: _Known | None = None


class LeftOutRoutes:
    """The routes that gateways have no room for. May be asked from any thread, in no transaction."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._gateways: OrderedDict[GatewayId, _Gateway] = OrderedDict()

    def of(self, store: Reader, proxy: GWProxy, members: Sequence[GWMember]) -> Mapping[str, str]:
        """Those of a gateway that the members share, by name, and why there is no room for them."""
        spec = proxy.spec
        basis = (spec.gateway, spec.public_ports, spec.client_ref.namespace, own_namespaces(proxy, members))
        gateway = self._gateway(proxy.id)
        with gateway.lock:
            # Read when it is our turn: whoever was before us may have reckoned what we have written, too.
            routes = store.by(GWRoute, "gateway", (proxy.account, proxy.name))
            versions = tuple((route.name, route.metadata.resource_version) for route in routes)
            known = gateway.known
            if known is None or known.basis != basis or known.routes != versions:
                known = gateway.known = _Known(basis, versions, left_out(proxy, routes, members))
            return known.left_out

    def _gateway(self, name: GatewayId) -> _Gateway:
        with self._lock:
            gateway = self._gateways.setdefault(name, _Gateway())
            self._gateways.move_to_end(name)
            while len(self._gateways) > _KEPT:
                self._gateways.popitem(last=False)
            return gateway
