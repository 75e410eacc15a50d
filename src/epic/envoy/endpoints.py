"""Slices become Envoy's load assignments.

The port of an endpoint is a target port, as the client's slices hold it, while a backendRef names a port of
the Service. A slice with one port leaves no choice. Of several, the one whose number is the backendRef's port
is taken, else the one whose name is that number in digits, else the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.gatewayapi.routing import Cluster
from epic.model.gatewayapi import EndpointPort
from epic.model.resources import GWEndpointSlice


def load_assignment(cluster: Cluster, slices: Iterable[GWEndpointSlice]) -> ClusterLoadAssignment:
    """The ready endpoints of a cluster, in order of address. `slices` may hold those of other Services."""
    places = {
        (address, port)
        for piece in slices
        if piece.spec.parent_ref.uid == cluster.service
        if (port := target_port(piece.spec.ports, cluster.port)) is not None
        for endpoint in piece.spec.endpoints
        if endpoint.conditions.ready is not False
        for text in endpoint.addresses
        if (address := usable(text)) is not None
    }
    assignment = ClusterLoadAssignment(cluster_name=cluster.name)
    if places:
        locality = assignment.endpoints.add()
        for address, port in sorted(places):
            place = locality.lb_endpoints.add().endpoint.address.socket_address
            place.address, place.port_value = str(address), port
    return assignment


def target_port(ports: Sequence[EndpointPort], wanted: int | None) -> int | None:
    """Which of a slice's ports serves a backendRef's port; None when the slice has no TCP port."""
    usable = [p for p in ports if p.protocol == "TCP" and p.port is not None]
    by_number = [p.port for p in usable if p.port == wanted]
    by_name = [p.port for p in usable if p.name == str(wanted)]
    return next(iter([*by_number, *by_name, *(p.port for p in usable)]), None)


def usable(text: str) -> IPv4Address | None:
    """An endpoint's address; None when it is none, or one that means the EPIC node itself."""
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return None
    own = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return None if own else address
