# SPDX-License-Identifier: Apache-2.0
"""Load assignments, and which of the gateway's endpoints each names: read once for each version. Pure."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import ip_address

from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf.message import DecodeError

from epic.ads.snapshot import LOAD_ASSIGNMENT, Snapshot, Versioned

_AT_ONCE = 1000
"""Endpoints; so many are read in about a millisecond."""


@dataclass(frozen=True)
class Assignment(Versioned):
    """A resource, with the names of its endpoints: `GATEWAY/ADDRESS`, as the control plane names them.

    Only addresses in figures are reached by tunnels: there are no others in `names`.
    """

    names: frozenset[str]


def read_assignment(
    name: str, resource: Versioned, share: Callable[[str], str]
) -> Generator[None, None, Assignment]:
    """Read a resource of the name `GATEWAY/NAME`, a part with each step; ValueError when it cannot be.

    `share` says which of equal names is kept.
    """
    try:
        message = endpoint_pb2.ClusterLoadAssignment.FromString(resource.value)
    except DecodeError as error:
        raise ValueError(f"ClusterLoadAssignment {name}: cannot be decoded: {error}") from error
    gateway, _, _ = name.partition("/")
    names: set[str] = set()
    for number, endpoint in enumerate(endpoints_of(message), start=1):
        found = _name(gateway, endpoint.endpoint.address.socket_address.address)
        if found is not None:
            names.add(share(found))
        if number % _AT_ONCE == 0:
            yield
    # Made of a set, it takes no more room than it needs.
    return Assignment(resource.version, resource.type_url, resource.value, frozenset(names))


def assignments(part: Snapshot) -> Mapping[str, Assignment]:
    """Those of a gateway's resources, by native name."""
    found = part.get(LOAD_ASSIGNMENT, {}).items()
    return {name: resource for name, resource in found if isinstance(resource, Assignment)}


def endpoints_of(message: endpoint_pb2.ClusterLoadAssignment) -> Iterator[endpoint_pb2.LbEndpoint]:
    """All endpoints of an assignment."""
    return (endpoint for locality in message.endpoints for endpoint in locality.lb_endpoints)


def is_among(names: Set[str], gateway: str, endpoint: endpoint_pb2.LbEndpoint) -> bool:
    """Whether the gateway's endpoint has one of these names."""
    address = endpoint.endpoint.address.socket_address.address
    if ":" in address:
        return _name(gateway, address) in names
    return f"{gateway}/{address}" in names


def _name(gateway: str, address: str) -> str | None:
    """What the control plane calls an endpoint; None for the name of a host."""
    try:
        if ":" in address:
            # There are many ways to write it, but one in names.
            return f"{gateway}/{ip_address(address)}"
        # A tenth of the time of `ip_address`, and as strict.
        socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return None
    return f"{gateway}/{address}"
