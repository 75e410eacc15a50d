# SPDX-License-Identifier: Apache-2.0
"""Clusters may use the same pod addresses: what Envoy gets instead of an endpoint's own address. Pure.

Envoy knows an endpoint by its address alone. So the endpoints of one cluster behind a gateway keep their
addresses, and all others get one that is theirs alone. What an endpoint gets depends on its cluster and
its own address, not on whether another happens to have the same: else a pod that comes or goes in one
cluster would move connections of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from epic.ipam.networks import Pools
from epic.model.resources import GWEndpointSlice
from epic.model.values.addresses import Address, order, usable

_SCATTERED = 64


class Place(NamedTuple):
    """Where an endpoint is: addresses are unique only within their cluster."""

    cluster_id: str
    address: Address


def endpoint_places(services: set[str], slices: Iterable[GWEndpointSlice]) -> set[Place]:
    """Where the endpoints of these Services are, ready or not."""
    return {
        Place(piece.spec.client_ref.cluster_id, address)
        for piece in slices
        if piece.spec.parent_ref.uid in services
        for endpoint in piece.spec.endpoints
        for text in endpoint.addresses
        if (address := usable(text)) is not None
    }


def envoy_addresses(places: Iterable[Place], unmapped: str | None, pools: Pools) -> dict[Place, Address]:
    """The address that Envoy connects to for each endpoint behind a gateway.

    Endpoints of the cluster `unmapped` keep their own. Each other one has a first choice in the pool, and
    further ones that have nothing to do with it: whoever picks endpoints with the same first choice does not
    make others go through them all. Places for which a pool has none are left out.
    """
    places = set(places)
    found = {place: place.address for place in places if place.cluster_id == unmapped}
    taken = set(found.values())
    others = places - found.keys()
    full: set[int] = set()
    for place in sorted(others, key=lambda place: (place.cluster_id, order(place.address))):
        version = place.address.version
        if version in full:
            continue
        address = _free(place, taken, pools.mapped if version == 4 else pools.mapped6)
        if address is None:
            full.add(version)
        else:
            found[place] = address
            taken.add(address)
    return found


def unmapped_cluster(stored: str | None, clusters: Iterable[str]) -> str | None:
    """The cluster whose endpoints keep their addresses: for ever the one that was chosen, else the first."""
    return min(clusters, default=None) if stored is None else stored


def _free(place: Place, taken: set[Address], pool: IPv4Network | IPv6Network) -> Address | None:
    # The ends of the pool mean "network" and "broadcast" or "any router" to some.
    size = pool.num_addresses - 2
    kind = IPv4Address if pool.version == 4 else IPv6Address
    for choice in _choices(place, size):
        address = kind(int(pool.network_address) + 1 + choice)
        if address not in taken:
            return address
    return None


def _choices(place: Place, size: int) -> Iterator[int]:
    """All numbers below `size`, some perhaps twice, in an order of the place's own."""
    for step in range(_SCATTERED):
        yield _hash(place, step) % size
    # Only a pool with few addresses left comes to this.
    yield from range(size)


def _hash(place: Place, step: int) -> int:
    text = f"{place.cluster_id}\0{place.address}" + (f"\0{step}" if step else "")
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
