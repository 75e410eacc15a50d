# SPDX-License-Identifier: Apache-2.0
"""Slices become Envoy's load assignments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.errors import Invalid
from epic.gatewayapi.routing import Cluster
from epic.gatewayapi.target_ports import TargetPorts
from epic.model.resources import GWEndpointSlice
from epic.model.values.addresses import Address, order, usable

MOST_PLACES = 200_000
"""Endpoints of a gateway, counted for each port of a Service that its routes name."""

_Ready = tuple[tuple[int, int], str]
_Place = tuple[tuple[int, int], int, str]
AddressOf = Callable[[str, Address], Address | None]
"""The address that Envoy connects to for an endpoint's own in a client's cluster; None: it has none."""


@dataclass(frozen=True)
class LoadAssignments:
    """Encoded ClusterLoadAssignments by cluster, and what to tell the gateway's owner of them."""

    encoded: Mapping[str, bytes]
    problem: Invalid | None = None


def load_assignments(
    clusters: Iterable[Cluster],
    slices: Iterable[GWEndpointSlice],
    ports: Mapping[str, TargetPorts],
    address_of: AddressOf,
) -> LoadAssignments:
    """The ready endpoints of each cluster, in order of address.

    `slices` may hold those of other Services; `ports` are theirs by name. Where there are more than
    MOST_PLACES, the clusters that have most get as many of their first ones as there is room for.
    """
    services = _services(slices, ports, address_of)
    wanted = [(cluster.name, services.get(cluster.service, _NOTHING), cluster.port) for cluster in clusters]
    counts = [service.count(port) for _, service, port in wanted]
    most = _share(counts)
    problem = None
    if sum(counts) > MOST_PLACES:
        problem = Invalid(
            f"The gateway has {sum(counts)} endpoints, counted for each port of a Service that its routes "
            f"name; at most {MOST_PLACES} are possible, so no port has more than {most} of them"
        )
    return LoadAssignments(
        {name: service.encode(name, port, most) for name, service, port in wanted}, problem
    )


class _Service:
    """A Service's ready endpoints; clusters whose ports are served by the same target ports share them."""

    def __init__(self, pieces: Iterable[tuple[TargetPorts, list[_Ready]]]) -> None:
        self._pieces = tuple(pieces)
        self._encoded: dict[tuple[int | None, ...], bytes] = {}

    def count(self, port: int | None) -> int:
        """How many endpoints serve the Service's port, at most."""
        return sum(len(ready) for ports, ready in self._pieces if ports.serving(port) is not None)

    def encode(self, name: str, port: int | None, most: int) -> bytes:
        """The assignment of a cluster, of the first `most` endpoints."""
        targets = tuple(ports.serving(port) for ports, _ in self._pieces)
        if targets not in self._encoded:
            self._encoded[targets] = _encode(islice(self._places(targets), most))
        # The fields of a message may be encoded one by one.
        first: bytes = ClusterLoadAssignment(cluster_name=name).SerializeToString()
        return first + self._encoded[targets]

    def _places(self, targets: Sequence[int | None]) -> Iterator[_Place]:
        runs = [
            [(place, target, text) for place, text in ready]
            for target, (_, ready) in zip(targets, self._pieces, strict=True)
            if target is not None
        ]
        # Merged, not sorted: other threads could not run while many thousands were sorted.
        return (place for place, _ in groupby(merge(*runs)))


_NOTHING = _Service(())


def _services(
    slices: Iterable[GWEndpointSlice], ports: Mapping[str, TargetPorts], address_of: AddressOf
) -> dict[str, _Service]:
    pieces: defaultdict[str, list[tuple[TargetPorts, list[_Ready]]]] = defaultdict(list)
    for piece in slices:
        ready = _ready(piece, address_of)
        if ready:
            pieces[piece.spec.parent_ref.uid].append((ports[piece.name], ready))
    return {uid: _Service(found) for uid, found in pieces.items()}


def _ready(piece: GWEndpointSlice, address_of: AddressOf) -> list[_Ready]:
    """Envoy's addresses of a slice's ready endpoints, in order."""
    found = {
        address
        for endpoint in piece.spec.endpoints
        if endpoint.conditions.ready is not False
        for text in endpoint.addresses
        if (own := usable(text)) is not None
        if (address := address_of(piece.spec.client_ref.cluster_id, own)) is not None
    }
    return sorted((order(address), str(address)) for address in found)


def _share(counts: Iterable[int]) -> int:
    """How many endpoints each cluster may have, of MOST_PLACES: what small ones leave is for others."""
    left, ordered = MOST_PLACES, sorted(counts)
    for index, count in enumerate(ordered):
        share = left // (len(ordered) - index)
        if count > share:
            return share
        left -= count
    return MOST_PLACES


def _encode(places: Iterable[_Place]) -> bytes:
    assignment = ClusterLoadAssignment()
    for _, port, text in places:
        if not assignment.endpoints:
            assignment.endpoints.add()
        place = assignment.endpoints[0].lb_endpoints.add().endpoint.address.socket_address
        place.address, place.port_value = text, port
    encoded: bytes = assignment.SerializeToString(deterministic=True)
    return encoded
