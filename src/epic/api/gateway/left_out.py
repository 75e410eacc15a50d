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


class _Known(NamedTuple):
    basis: tuple[object, ...]
    routes: tuple[GWRoute, ...]
    left_out: Mapping[str, str]


class LeftOutRoutes:
    """The routes that gateways have no room for. May be asked from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[GatewayId, _Known] = OrderedDict()

    def of(self, store: Reader, proxy: GWProxy, members: Sequence[GWMember]) -> Mapping[str, str]:
        """Those of a gateway that the members share, by name, and why there is no room for them."""
        routes = tuple(store.by(GWRoute, "gateway", (proxy.account, proxy.name)))
        spec = proxy.spec
        basis = (spec.gateway, spec.public_ports, spec.client_ref.namespace, own_namespaces(proxy, members))
        with self._lock:
            known = self._known.get(proxy.id)
        # What is the same object is not compared.
        if known is None or known.basis != basis or known.routes != routes:
            known = _Known(basis, routes, left_out(proxy, routes, members))
        with self._lock:
            self._known[proxy.id] = known
            self._known.move_to_end(proxy.id)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return known.left_out
