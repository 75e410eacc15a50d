# SPDX-License-Identifier: Apache-2.0
"""Slices become Envoy's load assignments.

The port of an endpoint is a target port, as the client's slices hold it, while a backendRef names a port of
the Service. A slice with one port leaves no choice. Of several, the one whose number is the backendRef's port
is taken, else the one whose name is that number in digits, else the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.gatewayapi.routing import Cluster
from epic.model.addresses import Address, order, usable
from epic.model.gatewayapi import EndpointPort
from epic.model.resources import GWEndpointSlice

AddressOf = Callable[[str, Address], Address | None]
"""The address that Envoy connects to for an endpoint's own in a client's cluster; None: it has none."""


def load_assignment(
    cluster: Cluster, slices: Iterable[GWEndpointSlice], address_of: AddressOf
) -> ClusterLoadAssignment:
    """The ready endpoints of a cluster, in order of address. `slices` may hold those of other Services."""
    places = {
        (address, port)
        for piece in slices
        if piece.spec.parent_ref.uid == cluster.service
        if (port := target_port(piece.spec.ports, cluster.port)) is not None
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


def target_port(ports: Sequence[EndpointPort], wanted: int | None) -> int | None:
    """Which of a slice's ports serves a backendRef's port; None when the slice has no TCP port."""
    usable = [p for p in ports if p.protocol == "TCP" and p.port is not None]
    by_number = [p.port for p in usable if p.port == wanted]
    by_name = [p.port for p in usable if p.name == str(wanted)]
    return next(iter([*by_number, *by_name, *(p.port for p in usable)]), None)
