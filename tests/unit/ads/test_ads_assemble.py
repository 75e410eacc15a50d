# SPDX-License-Identifier: Apache-2.0
"""What an EPIC node gets for endpoints of several clusters and of both families."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.ads.desired.assemble import Accepted, gateway_parts
from epic.ads.desired.objects import Inputs
from epic.ads.snapshot import ENDPOINT, INSTANCE, LOAD_ASSIGNMENT, TUNNEL, Snapshot
from epic.envoy.resources import bound_to, build
from epic.gatewayapi.target_ports import TargetPorts
from epic.gatewayapi.translate import translate
from epic.ipam.networks import DEFAULT_POOLS
from epic.model.resources import EnvoyResources, GWEndpointSlice, GWProxy, GWRoute, Tunnel
from epic.proto import epic_pb2
from epic.tunnels import proxy_services, wanted_tunnels, workload_endpoints

INSIDE, INSIDE6 = "100.64.0.1", "fd65:7069:6300::6440:1"


def proxy(unmapped: str | None) -> GWProxy:
    status = {"instances": [{"node": "e1", "inside-address": INSIDE}], "unmapped-cluster": unmapped}
    spec = {
        "public-address": "203.0.113.1",
        "gateway": {"gatewayClassName": "k", "listeners": [{"name": "l", "port": 80, "protocol": "HTTP"}]},
    }
    return GWProxy.model_validate(
        {"metadata": {"name": "U1", "namespace": "root"}, "spec": spec, "status": status}
    )


def route(*services: str) -> GWRoute:
    http = {"parentRefs": [{"name": "U1"}], "rules": [{"backendRefs": [{"name": s} for s in services]}]}
    return GWRoute.model_validate({"metadata": {"name": "R1", "namespace": "root"}, "spec": {"http": http}})


def piece(service: str, cluster: str, *addresses: str, node: str = "192.0.2.7") -> GWEndpointSlice:
    spec: dict[str, Any] = {
        "clientRef": {"clusterID": cluster},
        "parentRef": {"uid": service},
        "endpoints": [{"addresses": addresses, "nodeName": "n1"}],
        "ports": [{"port": 80}],
        "nodeAddresses": {"n1": node},
    }
    name = f"{service}-{cluster}"
    return GWEndpointSlice.model_validate({"metadata": {"name": name, "namespace": "root"}, "spec": spec})


def node_part(*slices: GWEndpointSlice, unmapped: str | None = "a") -> Snapshot:
    gateway, services = proxy(unmapped), {s.spec.parent_ref.uid for s in slices}
    routes = [route(*sorted(services))]
    nodes = workload_endpoints(proxy_services("U1", routes), slices)
    addresses = {node: address for node, (address, _) in nodes.items()}
    tunnels = [
        Tunnel.model_validate(
            {
                "metadata": {"name": str(number), "namespace": "root"},
                "spec": {
                    "proxy": "U1",
                    "service": 1,
                    "epic_node": wanted.key.epic_node,
                    "inside_address": wanted.inside_address,
                    "cluster_id": wanted.key.workload.cluster_id,
                    "node_name": wanted.key.workload.name,
                    "node_address": wanted.node_address,
                    "keys": [{"epoch": 1, "secret": "00" * 16}],
                    "signing-epoch": 1,
                    "signing-since": "2026-01-01T00:00:00Z",
                },
            }
        )
        for number, wanted in enumerate(wanted_tunnels(gateway, addresses), 1)
    ]
    ports = {piece.name: TargetPorts(piece.spec.ports) for piece in slices}
    inputs = Inputs(gateway, tuple(routes), slices, tuple(tunnels), EnvoyResources(), ports)
    translation = translate(gateway, routes, proxy_services("U1", routes))
    accepted = Accepted(translation.routing, build(translation.routing, EnvoyResources()))
    return gateway_parts(inputs, accepted, DEFAULT_POOLS).by_node["e1"]


def endpoints(part: Snapshot) -> dict[str, epic_pb2.Endpoint]:
    return {n: epic_pb2.Endpoint.FromString(v.body.value) for n, v in part[ENDPOINT].items()}


def envoys(part: Snapshot, service: str) -> list[str]:
    found = ClusterLoadAssignment.FromString(part[LOAD_ASSIGNMENT][f"root.U1/svc/{service}"].body.value)
    return [e.endpoint.address.socket_address.address for g in found.endpoints for e in g.lb_endpoints]


def test_equal_addresses_of_two_clusters_are_two_endpoints_with_a_tunnel_each() -> None:
    part = node_part(piece("S1", "a", "10.1.0.1"), piece("S2", "b", "10.1.0.1"))
    (own,), (mapped,) = envoys(part, "S1"), envoys(part, "S2")
    assert own == "10.1.0.1"
    found = endpoints(part)
    assert found.keys() == {f"root.U1/{own}", f"root.U1/{mapped}"}
    assert found[f"root.U1/{own}"] == epic_pb2.Endpoint(
        gateway="root.U1", inside_address=INSIDE, address=own, tunnel=1
    )
    assert found[f"root.U1/{mapped}"] == epic_pb2.Endpoint(
        gateway="root.U1", inside_address=INSIDE, address=mapped, tunnel=2, real_address="10.1.0.1"
    )


def test_a_pod_that_comes_or_goes_in_one_cluster_changes_nothing_for_the_other() -> None:
    both = node_part(piece("S1", "a", "10.1.0.1"), piece("S2", "b", "10.1.0.1"))
    alone = node_part(piece("S1", "a", "10.1.0.2"), piece("S2", "b", "10.1.0.1"))
    assert envoys(both, "S2") == envoys(alone, "S2")
    name = f"root.U1/{envoys(both, 'S2')[0]}"
    assert both[ENDPOINT][name] == alone[ENDPOINT][name]


def test_with_one_cluster_nothing_is_mapped() -> None:
    part = node_part(piece("S1", "b", "10.1.0.1", "10.1.0.2"), unmapped=None)
    assert envoys(part, "S1") == ["10.1.0.1", "10.1.0.2"]
    assert {e.real_address for e in endpoints(part).values()} == {""}


def test_ipv6_endpoints_are_reached_from_the_ipv6_inside_address() -> None:
    part = node_part(
        piece("S1", "a", "2001:DB8::1", node="2001:db8:1::7"), piece("S2", "b", "2001:db8::1", "10.1.0.1")
    )
    assert envoys(part, "S1") == ["2001:db8::1"]
    (four, six) = envoys(part, "S2")
    found = {e.address: (e.inside_address, e.real_address, e.tunnel) for e in endpoints(part).values()}
    assert found == {
        "2001:db8::1": (INSIDE6, "", 1),
        four: (INSIDE, "10.1.0.1", 2),
        six: (INSIDE6, "2001:db8::1", 2),
    }


def test_instances_and_tunnels_tell_both_inside_addresses() -> None:
    part = node_part(piece("S1", "a", "10.1.0.1", node="2001:db8:1::7"))
    instance = epic_pb2.Instance.FromString(part[INSTANCE]["root.U1"].body.value)
    tunnel = epic_pb2.Tunnel.FromString(part[TUNNEL]["1"].body.value)
    assert (instance.inside_address, instance.inside_address6) == (INSIDE, INSIDE6)
    assert (tunnel.inside_address, tunnel.inside_address6) == (INSIDE, INSIDE6)
    assert tunnel.declared_address == "2001:db8:1::7"


def test_the_clusters_of_an_instance_are_bound_to_its_addresses_whoever_made_them() -> None:
    text = (
        "name: {{ ClusterName | tojson }}\ntype: EDS\n"
        "eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}\n"
        "upstream_bind_config: {source_address: {address: 192.0.2.1, port_value: 0}}\n"
    )
    mine = EnvoyResources.model_validate({"clusters": [{"name": "mine", "value": text}]})
    addresses = IPv4Address(INSIDE), IPv6Address(INSIDE6)
    for templates in (EnvoyResources(), mine):
        routing = translate(proxy(None), [route("s1", "s2")], {"s1", "s2"}).routing
        bundle = build(routing, templates)
        found = Accepted(routing, bundle).clusters(*addresses)
        assert {name: Cluster.FromString(content.value) for name, content in found.items()} == {
            f"root.U1/{name}": bound_to(cluster, *addresses) for name, cluster in bundle.clusters.items()
        }
        assert len(found) == 2
