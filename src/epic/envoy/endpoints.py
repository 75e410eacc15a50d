# SPDX-License-Identifier: Apache-2.0
"""Slices become Envoy's load assignments.

The port of an endpoint is a target port, as the client's slices hold it, while a backendRef names a port of
the Service. A slice with one port leaves no choice. Of several, the one whose number is the backendRef's port
is taken, else the one whose name is that number in digits, else the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.gatewayapi.routing import Cluster
from epic.model.addresses import Address, order, usable
from epic.model.gatewayapi import EndpointPort
from epic.model.resources import GWEndpointSlice

_Piece = tuple[GWEndpointSlice, "TargetPorts"]
AddressOf = Callable[[str, Address], Address | None]
"""The address that Envoy connects to for an endpoint's own in a client's cluster; None: it has none."""


class TargetPorts:
    """The TCP ports of a slice: many backendRefs may ask for one of many."""

    def __init__(self, ports: Sequence[EndpointPort]) -> None:
        self._first: int | None = None
        self._numbers: set[int] = set()
        self._by_name: dict[str, int] = {}
        for port in ports:
            if port.protocol == "TCP" and port.port is not None:
                if self._first is None:
                    self._first = port.port
                self._numbers.add(port.port)
                if port.name:
                    self._by_name.setdefault(port.name, port.port)

    def serving(self, wanted: int | None) -> int | None:
        """Which one serves a backendRef's port; None when the slice has no TCP port."""
        if wanted in self._numbers:
            return wanted
        return self._by_name.get(str(wanted), self._first)


def load_assignments(
    clusters: Iterable[Cluster], slices: Iterable[GWEndpointSlice], address_of: AddressOf
) -> dict[str, ClusterLoadAssignment]:
    """The ready endpoints of each cluster, by its name. `slices` may hold those of other Services."""
    pieces: defaultdict[str, list[_Piece]] = defaultdict(list)
    for piece in slices:
        if piece.spec.endpoints:
            pieces[piece.spec.parent_ref.uid].append((piece, TargetPorts(piece.spec.ports)))
    return {
        cluster.name: _load_assignment(cluster, pieces.get(cluster.service, ()), address_of)
        for cluster in clusters
    }


def _load_assignment(
    cluster: Cluster, pieces: Iterable[_Piece], address_of: AddressOf
) -> ClusterLoadAssignment:
    """The ready endpoints of a cluster, in order of address."""
    places = {
        (address, port)
        for piece, ports in pieces
        if (port := ports.serving(cluster.port)) is not None
        for endpoint in piece.spec.endpoints
        if endpoint.conditions.ready is not False
        for text in endpoint.addresses
        if (own := usable(text)) is not None
        if (address := address_of(piece.spec.client_ref.cluster_id, own)) is not None
    }
    assignment = ClusterLoadAssignment(cluster_name=cluster.name)
    if places:
        locality = assignment.endpoints.add()
        for address, port in sorted(places, key=lambda place: (order(place[0]), place[1])):
            place = locality.lb_endpoints.add().endpoint.address.socket_address
            place.address, place.port_value = str(address), port
    return assignment
