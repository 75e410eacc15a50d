# SPDX-License-Identifier: Apache-2.0
"""Which endpoints the clusters of a gateway get: gathered once, and not more than can be built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.envoy import endpoints
from epic.envoy.endpoints import LoadAssignments, load_assignments
from epic.gatewayapi.routing import Cluster
from epic.gatewayapi.target_ports import TargetPorts
from epic.model.resources import GWEndpointSlice
from epic.model.values.addresses import Address


class Mapped:
    """Counts how often the address of an endpoint is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _: str, own: Address) -> Address:
        self.asked += 1
        return own


def piece(service: str, count: int, *ports: int, first: int = 1, name: str = "") -> GWEndpointSlice:
    found = [{"addresses": [f"10.0.{n // 250}.{n % 250}"]} for n in range(first, first + count)]
    spec = {
        "parentRef": {"uid": service},
        "endpoints": found,
        "ports": [{"name": f"p{port}", "port": port} for port in ports],
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": name or service}, "spec": spec})


def assign(
    clusters: Iterable[Cluster], *slices: GWEndpointSlice, mapped: Mapped | None = None
) -> LoadAssignments:
    ports = {piece.name: TargetPorts(piece.spec.ports) for piece in slices}
    return load_assignments(clusters, slices, ports, mapped or Mapped())


def places(content: bytes) -> list[tuple[str, int]]:
    assignment = ClusterLoadAssignment.FromString(content)
    found = [e.endpoint.address.socket_address for g in assignment.endpoints for e in g.lb_endpoints]
    return [(place.address, place.port_value) for place in found]


def test_a_cluster_has_the_ready_endpoints_of_all_slices_once_and_in_order() -> None:
    slices = [piece("S", 3, 80, first=2, name="b"), piece("S", 3, 80, name="a"), piece("T", 9, 80)]
    (content,) = assign([Cluster("S", 80)], *slices).encoded.values()
    assert places(content) == [(f"10.0.0.{n}", 80) for n in (1, 2, 3, 4)]


def test_an_assignment_is_encoded_as_protobuf_does() -> None:
    for clusters, slices in (([Cluster("S", 80)], [piece("S", 3, 80)]), ([Cluster("S", 80)], [])):
        ((name, content),) = assign(clusters, *slices).encoded.items()
        found = ClusterLoadAssignment.FromString(content)
        assert (found.cluster_name, found.SerializeToString(deterministic=True)) == (name, content)


def test_clusters_that_end_at_the_same_target_port_are_gathered_and_encoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded, encode = [], endpoints._encode

    def counting(found: Any) -> bytes:
        encoded.append(encode(found))
        return encoded[-1]

    monkeypatch.setattr(endpoints, "_encode", counting)
    mapped = Mapped()
    clusters = [Cluster("S", port) for port in range(1, 33)]
    found = assign(clusters, piece("S", 100, 8080), mapped=mapped).encoded
    assert (mapped.asked, len(encoded)) == (100, 1)
    assert [{port for _, port in places(content)} for content in found.values()] == [{8080}] * 32


def test_more_endpoints_than_can_be_built_are_left_out_where_most_are_and_the_owner_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints, "MOST_PLACES", 100)
    large, small = [Cluster("large", port) for port in range(1, 5)], Cluster("small", 80)
    slices = [piece("large", 90, 80), piece("small", 20, 80, first=400)]
    found = assign([*large, small], *slices)
    counts = {name: len(places(content)) for name, content in found.encoded.items()}
    assert counts == {cluster.name: 20 for cluster in (*large, small)}
    assert "380 endpoints" in str(found.problem)
    assert "at most 100 are possible, so no port has more than 20" in str(found.problem)
    assert assign([large[0], small], slices[1]).problem is None
