# SPDX-License-Identifier: Apache-2.0
"""What a LoadBalancer and its endpoints are served by, down to what Envoy is told."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from hypothesis import given
from hypothesis import strategies as st

from epic.envoy.endpoints import load_assignments
from epic.gatewayapi.target_ports import TargetPorts
from epic.gatewayapi.translate import translate
from epic.kinds.registry import REMOTE_ENDPOINT
from epic.lifecycle.balancers import endpoint_name, gateway_of, routes_of, slice_of
from epic.model.balancers import LoadBalancer, RemoteEndpoint, RemoteEndpointSpec, RemotePort
from epic.model.resources import GWEndpointSlice, GWProxy
from epic.model.values.addresses import usable


def balancer(*ports: dict[str, Any]) -> LoadBalancer:
    spec = {"display-name": "web", "public-ports": ports, "group": "g", "upstream-clusters": ["c1"]}
    return LoadBalancer.model_validate({"metadata": {"name": "g-web", "namespace": "root"}, "spec": spec})


def gateway(of: LoadBalancer) -> GWProxy:
    spec = {**gateway_of(of, "g"), "public-address": "203.0.113.9"}
    return GWProxy.model_validate({"metadata": {"name": of.name, "namespace": "root"}, "spec": spec})


def endpoint_spec(address: str, port: int, name: str = "", **spec: Any) -> RemoteEndpointSpec:
    whole = {
        "cluster": "c1",
        "address": address,
        "node-address": "10.0.0.5",
        "port": {"port": port, "name": name},
        "load-balancer": "g-web",
    }
    return RemoteEndpointSpec.model_validate({**whole, **spec})


def piece(of: LoadBalancer, spec: RemoteEndpointSpec) -> GWEndpointSlice:
    metadata = {"name": endpoint_name("root", of.name, spec), "namespace": "root"}
    return slice_of(RemoteEndpoint.model_validate({"metadata": metadata, "spec": spec}), of)


def served(of: LoadBalancer, *specs: RemoteEndpointSpec) -> dict[int, list[str]]:
    """The endpoints that Envoy sends each of the gateway's ports to."""
    slices = [piece(of, spec) for spec in specs]
    routing = translate(gateway(of), routes_of(of), {of.name}).routing
    ports = {one.name: TargetPorts(one.spec.ports) for one in slices}
    assignments = load_assignments(routing.clusters, slices, ports, lambda _, own: own).encoded
    found = {}
    for port in routing.ports:
        (share,) = port.backends
        places = ClusterLoadAssignment.FromString(assignments[share.cluster]).endpoints
        sockets = [e.endpoint.address.socket_address for p in places for e in p.lb_endpoints]
        found[port.number] = [f"{socket.address} {socket.port_value}" for socket in sockets]
    return found


def test_each_public_port_leads_to_the_endpoints_that_serve_it() -> None:
    web = balancer({"name": "http", "port": 80}, {"name": "https", "port": 443})
    endpoints = (
        endpoint_spec("10.1.2.3", 8080, "http"),
        endpoint_spec("10.1.2.4", 8081, "http"),
        endpoint_spec("10.1.2.3", 8443, "https"),
        endpoint_spec("10.1.2.5", 80),
        endpoint_spec("10.1.2.6", 9999),
        endpoint_spec("10.1.2.7", 8080, "http", **{"node-address": ""}),
    )
    assert served(web, *endpoints) == {
        80: ["10.1.2.3 8080", "10.1.2.4 8081", "10.1.2.5 80"],
        443: ["10.1.2.3 8443"],
    }


def test_a_port_without_a_name_serves_the_only_one_and_no_port_of_udp_is_opened() -> None:
    web = balancer({"port": 80}, {"port": 53, "protocol": "UDP"})
    endpoints = (
        endpoint_spec("10.1.2.3", 8080),
        endpoint_spec("10.1.2.3", 5353).model_copy(update={"port": RemotePort(port=5353, protocol="UDP")}),
    )
    assert served(web, *endpoints) == {80: ["10.1.2.3 8080"]}
    told = translate(gateway(web), routes_of(web), {web.name}).listeners
    assert {one.name: one.reason for one in told} == {"tcp-80": "Accepted", "udp-53": "UnsupportedProtocol"}


@given(st.ip_addresses().filter(lambda address: usable(str(address)) is not None), st.integers(1, 65535))
def test_every_address_makes_a_name_that_an_object_may_have(address: Any, port: int) -> None:
    name = endpoint_name("root", "g-web", endpoint_spec(str(address), port))
    assert REMOTE_ENDPOINT.named.allows(name)
    assert re.fullmatch(rf".*-{port}-tcp-[0-9a-f]{{16}}", name)


def test_endpoints_that_differ_in_anything_have_different_names() -> None:
    one = endpoint_spec("10.1.2.3", 80)
    others = [
        endpoint_spec("10.1.2.4", 80),
        endpoint_spec("10.1.2.3", 81),
        endpoint_spec("10.1.2.3", 80, "http"),
        endpoint_spec("10.1.2.3", 80, cluster="c2"),
        endpoint_spec("10.1.2.3", 80, **{"node-address": "10.0.0.6"}),
    ]
    names = sorted(
        [endpoint_name("root", "g-web", spec) for spec in (one, *others)]
        + [endpoint_name("root", "g-api", one), endpoint_name("other", "g-web", one)]
    )
    assert all(name != following for name, following in pairwise(names))
    assert endpoint_name("root", "g-web", endpoint_spec("10.1.2.3", 80)) in names
