# SPDX-License-Identifier: Apache-2.0
"""What is counted change by change is what one finds who looks at everything."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from epic.model.resources import GWEndpointSlice, GWRoute
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.backends import Backends, endpoint_count, named_nodes
from epic.tunnels import WorkloadNode, proxy_services, route_parents, route_services, workload_endpoints

GATEWAYS, SERVICES, NODES = ("g0", "g1"), ("s0", "s1", "s2"), ("n0", "n1", "n2", "n3")


def route(dice: random.Random, name: str) -> GWRoute:
    backends = [{"name": uid, "port": 80} for uid in dice.sample(SERVICES, dice.randint(1, 2))]
    parents = [{"name": gateway} for gateway in dice.sample(GATEWAYS, dice.randint(1, 2))]
    http = {"parentRefs": parents, "rules": [{"backendRefs": backends}]}
    return GWRoute.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": {"http": http}})


def piece(dice: random.Random, name: str) -> GWEndpointSlice:
    nodes = dice.sample(NODES, dice.randint(0, 3))
    spec = {
        "clientRef": {"clusterID": "c"},
        "parentRef": {"uid": dice.choice(SERVICES)},
        "endpoints": [{"addresses": [f"10.0.0.{dice.randint(1, 9)}"], "nodeName": node} for node in nodes],
        "nodeAddresses": {node: f"192.0.2.{dice.randint(1, 9)}" for node in dice.sample(nodes, len(nodes))},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": spec})


@pytest.mark.parametrize("seed", range(20))
def test_counts_follow_routes_and_slices(seed: int) -> None:
    dice = random.Random(seed)
    routes: dict[str, GWRoute] = {}
    slices: dict[str, GWEndpointSlice] = {}
    existing: set[str] = set()
    backends = Backends()
    for _ in range(80):
        name, gone = f"x{dice.randint(0, 4)}", dice.random() < 0.3
        if dice.random() < 0.2:
            changed = dice.choice(GATEWAYS)
            existing ^= {changed}
            backends.apply_gateway(GatewayId("a", changed), exists=changed in existing)
        elif dice.random() < 0.5:
            routes.pop(name, None)
            routes |= {} if gone else {name: route(dice, name)}
            backends.apply_route("a", name, routes.get(name))
        else:
            slices.pop(name, None)
            slices |= {} if gone else {name: piece(dice, name)}
            backends.apply_slice("a", name, slices.get(name))
        for gateway in GATEWAYS:
            to_it = routes.values() if gateway in existing else ()
            behind = workload_endpoints(proxy_services(gateway, to_it), slices.values())
            found = backends.workloads(GatewayId("a", gateway))
            assert found == {node: address for node, (address, _) in behind.items()}
            assert backends.count_workloads(GatewayId("a", gateway)) == len(behind)
        for uid in SERVICES:
            to_service = [r for r in routes.values() if uid in route_services(r)]
            assert backends.gateways("a", uid) == set().union(*map(route_parents, to_service)) & existing
        named = set().union(*map(named_nodes, slices.values()))
        assert backends.named("a") == (len(named), sum(map(endpoint_count, slices.values())))


def test_nothing_is_kept_of_what_is_gone() -> None:
    dice, backends = random.Random(0), Backends()
    empty = kept(backends)
    for gateway in GATEWAYS:
        backends.apply_gateway(GatewayId("a", gateway), exists=True)
    backends.apply_route("a", "r", route(dice, "r"))
    backends.apply_slice("a", "s", piece(dice, "s"))
    backends.apply_slice("a", "s", None)
    backends.apply_route("a", "r", None)
    for gateway in GATEWAYS:
        backends.apply_gateway(GatewayId("a", gateway), exists=False)
    assert kept(backends) == empty


def test_a_change_costs_nothing_for_gateways_that_routes_name_and_do_not_exist() -> None:
    backends = Backends()
    parents = [{"name": f"made-up-{number}"} for number in range(32)]
    http = {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "s0", "port": 80}]}]}
    body = {"metadata": {"name": "r", "namespace": "a"}, "spec": {"http": http}}
    backends.apply_route("a", "r", GWRoute.model_validate(body))
    spec = {
        "clientRef": {"clusterID": "c"},
        "parentRef": {"uid": "s0"},
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n0"}],
        "nodeAddresses": {"n0": "192.0.2.1"},
    }
    made = {"metadata": {"name": "s", "namespace": "a"}, "spec": spec}
    backends.apply_slice("a", "s", GWEndpointSlice.model_validate(made))
    assert backends.gateways("a", "s0") == set()
    assert kept(backends)["_behind"] == kept(backends)["_services"] == 0
    backends.apply_gateway(GatewayId("a", "made-up-7"), exists=True)
    assert kept(backends)["_behind"] == backends.count_workloads(GatewayId("a", "made-up-7")) == 1


def wide(backends: Backends, gateways: int, services: int, nodes: int) -> GWRoute:
    """A route from all of these gateways to Services that have an endpoint on each of the nodes."""
    for number in range(services):
        at = [f"n{node}" for node in range(nodes)]
        spec = {
            "clientRef": {"clusterID": "c"},
            "parentRef": {"uid": f"s{number}"},
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node} for node in at],
            "nodeAddresses": dict.fromkeys(at, "192.0.2.9"),
        }
        made = {"metadata": {"name": f"p{number}", "namespace": "a"}, "spec": spec}
        backends.apply_slice("a", f"p{number}", GWEndpointSlice.model_validate(made))
    for number in range(gateways):
        backends.apply_gateway(GatewayId("a", f"g{number}"), exists=True)
    refs = [{"name": f"s{number}", "port": 80} for number in range(services)]
    parents = [{"name": f"g{number}"} for number in range(gateways)]
    http = {"parentRefs": parents, "rules": [{"backendRefs": refs}]}
    return GWRoute.model_validate({"metadata": {"name": "r", "namespace": "a"}, "spec": {"http": http}})


def test_a_route_is_counted_once_for_each_gateway_and_node_however_many_services_it_leads_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backends = Backends()
    led = wide(backends, gateways=6, services=8, nodes=5)
    counted: list[tuple[GatewayId, int]] = []
    change = backends.endpoints.change

    def noted(gateway: GatewayId, node: WorkloadNode, number: int) -> None:
        counted.append((gateway, number))
        change(gateway, node, number)

    monkeypatch.setattr(backends.endpoints, "change", noted)
    hosted: list[frozenset[str]] = []
    find = backends._count_hosted

    def looked_up(account: str, services: frozenset[str]) -> Counter[WorkloadNode]:
        hosted.append(services)
        return find(account, services)

    monkeypatch.setattr(backends, "_count_hosted", looked_up)
    for obj, number in ((led, 8), (None, -8)):
        counted.clear()
        hosted.clear()
        backends.apply_route("a", "r", obj)
        assert Counter(counted) == {(GatewayId("a", f"g{g}"), number): 5 for g in range(6)}
        assert len([services for services in hosted if services]) == 1, "summed up once for all gateways"


def test_the_nodes_behind_gateways_with_the_same_services_are_found_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backends = Backends()
    backends.apply_route("a", "r", wide(backends, gateways=6, services=3, nodes=4))
    found: list[frozenset[str]] = []
    find = backends._find_workloads

    def looked_up(account: str, services: frozenset[str]) -> object:
        found.append(services)
        return find(account, services)

    monkeypatch.setattr(backends, "_find_workloads", looked_up)
    for _ in range(2):
        assert {len(backends.workloads(GatewayId("a", f"g{g}"))) for g in range(6)} == {4}
    assert len(found) == 1
    backends.apply_slice("a", "p0", None)
    assert len(backends.workloads(GatewayId("a", "g0"))) == 4
    assert len(found) == 2, "a slice may have changed them"


def test_an_endpoint_without_an_address_counts() -> None:
    endpoints = [{"addresses": [], "nodeName": f"n{number}"} for number in range(7)]
    body = {"metadata": {"name": "s", "namespace": "a"}, "spec": {"endpoints": endpoints}}
    assert endpoint_count(GWEndpointSlice.model_validate(body)) == 7


def kept(backends: Backends) -> dict[str, int]:
    held = vars(backends) | vars(backends.endpoints)
    return {name: len(what) for name, what in held.items() if what is not backends.endpoints}
