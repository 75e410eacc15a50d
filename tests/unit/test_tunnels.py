# SPDX-License-Identifier: Apache-2.0
"""The tunnel plan: which pairs get a tunnel, which tunnels stay, what the gateway shows of them."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.tunnels import (
    Connection,
    WantedTunnel,
    WorkloadNode,
    plan,
    proxy_services,
    route_parents,
    tunnel_endpoints,
    wanted_tunnels,
    workload_endpoints,
)


def proxy(*nodes: str) -> GWProxy:
    instances = [{"node": n, "inside-address": f"100.64.0.{i + 1}"} for i, n in enumerate(nodes)]
    return GWProxy.model_validate(
        {"metadata": {"name": "U1", "namespace": "a"}, "spec": {}, "status": {"instances": instances}}
    )


def route(name: str, parent: str, *services: str, kind: str = "http") -> GWRoute:
    spec = {"parentRefs": [{"name": parent}], "rules": [{"backendRefs": [{"name": s} for s in services]}]}
    return GWRoute.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": {kind: spec}})


def endpoint_slice(name: str, service: str, cluster: str, *endpoints: tuple[str, str]) -> GWEndpointSlice:
    spec = {
        "clientRef": {"clusterID": cluster},
        "parentRef": {"uid": service},
        "endpoints": [
            {"addresses": [a], "nodeName": n, "conditions": {"ready": False}} for a, n in endpoints
        ],
        "nodeAddresses": {"n1": "10.0.0.1", "n2": "10.0.0.2"},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": spec})


def tunnel(number: int, want: WantedTunnel) -> Tunnel:
    spec = {
        "proxy": want.key.proxy,
        "service": 1,
        "epic_node": want.key.epic_node,
        "inside_address": want.inside_address,
        "cluster_id": want.key.workload.cluster_id,
        "node_name": want.key.workload.name,
        "node_address": want.node_address,
        "keys": (),
        "signing_epoch": 1,
        "signing_since": "2026-01-01T00:00:00Z",
    }
    return Tunnel.model_validate({"metadata": {"name": str(number), "namespace": "a"}, "spec": spec})


def pairs(wanted: list[WantedTunnel]) -> set[tuple[str, str, str]]:
    return {(w.key.epic_node, w.key.workload.cluster_id, w.key.workload.name) for w in wanted}


def wanted_of(gateway: GWProxy, routes: list[GWRoute], slices: list[GWEndpointSlice]) -> list[WantedTunnel]:
    found = workload_endpoints(proxy_services(gateway.name, routes), slices)
    return wanted_tunnels(gateway, {node: address for node, (address, _) in found.items()})


def test_each_instance_gets_a_tunnel_to_each_node_with_endpoints_ready_or_not() -> None:
    slices = [endpoint_slice("E1", "S1", "c", ("10.1.0.1", "n1"), ("10.1.0.2", "n2"))]
    wanted = wanted_of(proxy("e1", "e2"), [route("R1", "U1", "S1")], slices)
    assert pairs(wanted) == {(e, "c", n) for e in ("e1", "e2") for n in ("n1", "n2")}


def test_tcp_routes_count_and_routes_of_other_gateways_and_other_services_do_not() -> None:
    slices = [endpoint_slice(f"E{s}", s, "c", ("10.1.0.1", n)) for s, n in (("S1", "n1"), ("S2", "n2"))]
    routes = [route("R1", "U1", "S1", kind="tcp"), route("R2", "U2", "S2")]
    assert pairs(wanted_of(proxy("e1"), routes, slices)) == {("e1", "c", "n1")}


def test_equal_node_names_of_two_clusters_are_two_nodes() -> None:
    slices = [endpoint_slice(f"E{c}", "S1", c, ("10.1.0.1", "n1")) for c in ("c1", "c2")]
    wanted = wanted_of(proxy("e1"), [route("R1", "U1", "S1")], slices)
    assert pairs(wanted) == {("e1", "c1", "n1"), ("e1", "c2", "n1")}


def test_endpoints_without_a_known_node_get_no_tunnel() -> None:
    slices = [endpoint_slice("E1", "S1", "c", ("10.1.0.1", "unknown"), ("10.1.0.2", ""))]
    assert wanted_of(proxy("e1"), [route("R1", "U1", "S1")], slices) == []


def want(node: str, workload: str, address: str = "10.0.0.1") -> WantedTunnel:
    key = Connection("U1", node, WorkloadNode("c", workload))
    return WantedTunnel(key, IPv4Address("100.64.0.1"), IPv4Address(address))


def test_a_changed_node_address_keeps_the_tunnel() -> None:
    (changed,) = plan([want("e1", "n1", "10.0.0.9")], [tunnel(7, want("e1", "n1"))]).update
    assert (changed.name, str(changed.spec.node_address)) == ("7", "10.0.0.9")


wants = st.sets(st.builds(want, st.sampled_from(["e1", "e2", "e3"]), st.sampled_from(["n1", "n2", "n3"])))


@given(stored=wants, wanted=wants)
def test_plan_leads_from_the_stored_tunnels_to_the_wanted_ones(
    stored: set[WantedTunnel], wanted: set[WantedTunnel]
) -> None:
    found = plan(wanted, [tunnel(i, w) for i, w in enumerate(stored)])
    assert set(found.create) == wanted - stored
    assert len(found.delete) == len(stored - wanted)
    assert found.update == ()


def test_gateway_shows_tunnels_by_workload_node_then_epic_node() -> None:
    node = Node.model_validate({"metadata": {"name": "e1"}, "spec": {"address": "192.0.2.1"}})
    shown = tunnel_endpoints([tunnel(7, want("e1", "n1"))], {"e1": node})
    assert {address: value.wire() for address, value in shown.items()} == {
        "10.0.0.1": {
            "epic-endpoints": {
                "192.0.2.1": {
                    "epic-address": "192.0.2.1",
                    "epic-port": {"port": 6080, "protocol": "UDP", "appProtocol": "gue"},
                    "tunnel-id": 7,
                }
            }
        }
    }


def test_a_parent_that_is_no_gateway_is_none() -> None:
    others = [{"name": "U2", "kind": "Service", "group": ""}, {"name": "U3", "group": "example.net"}]
    spec = {"http": {"parentRefs": [{"name": "U1"}, *others]}}
    found = GWRoute.model_validate({"metadata": {"name": "r", "namespace": "a"}, "spec": spec})
    assert route_parents(found) == {"U1"}
