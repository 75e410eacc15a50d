# SPDX-License-Identifier: Apache-2.0
"""What workload nodes are to be told, change by change, is what one finds who looks at everything."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from epic.model.base import Resource
from epic.model.resources import GWEndpointSlice, GWRoute, Node, Tunnel
from epic.reconcile.counts.workload_index import Told, WorkloadIndex
from epic.store.interface import Change
from epic.tunnels import WorkloadNode, key_of, proxy_services, workload_endpoints

GATEWAYS, SERVICES, NODES, EPIC_NODES = (
    ("g0", "g1", "g2"),
    ("s0", "s1", "s2"),
    ("n0", "n1", "n2"),
    ("e1", "e2"),
)
WORKLOADS = [WorkloadNode(cluster, node) for cluster in ("c", "d") for node in NODES]

Objects = dict[tuple[str, str], Resource]


def route(name: str, parents: Iterable[str], services: Iterable[str]) -> GWRoute:
    backends = [{"name": uid, "port": 80} for uid in services]
    http = {"parentRefs": [{"name": gateway} for gateway in parents], "rules": [{"backendRefs": backends}]}
    return GWRoute.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": {"http": http}})


def piece(
    name: str, service: str, at: Iterable[tuple[str, str]], cluster: str = "c", known: Any = NODES
) -> Any:
    """A slice with these (address, node); `known` are the nodes whose own addresses it gives."""
    spec = {
        "clientRef": {"clusterID": cluster},
        "parentRef": {"uid": service},
        "endpoints": [{"addresses": [address], "nodeName": node} for address, node in at],
        "nodeAddresses": dict.fromkeys(known, "192.0.2.9"),
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": name, "namespace": "a"}, "spec": spec})


def tunnel(name: str, gateway: str, epic_node: str, node: str, cluster: str = "c", **more: Any) -> Tunnel:
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if more.pop("deleting", False) else {}
    spec = {
        "proxy": gateway,
        "service": 1,
        "epic-node": epic_node,
        "inside-address": "100.64.0.1",
        "cluster-id": cluster,
        "node-name": node,
        "node-address": "192.0.2.9",
        "keys": [{"epoch": 1, "secret": "00" * 16}],
        "signing-epoch": 1,
        "signing-since": "2026-01-01T00:00:00Z",
        **more,
    }
    return Tunnel.model_validate({"metadata": {"name": name, "namespace": "a", **gone}, "spec": spec})


def epic_node(name: str, address: str = "192.0.2.1", **status: Any) -> Node:
    return Node.model_validate({"metadata": {"name": name}, "spec": {"address": address}, "status": status})


def change(obj: Resource) -> Change:
    return Change(1, obj.kind, obj.account, obj.name, obj)


def gone(obj: Resource) -> Change:
    return Change(1, obj.kind, obj.account, obj.name, None)


def made_of(index: WorkloadIndex, workload: WorkloadNode) -> Any:
    return shown(index.told(workload))


def shown(told: Told) -> Any:
    """In an order, and with the endpoints of a gateway together."""
    endpoints = {gateway: frozenset().union(*parts) for gateway, parts in told.endpoints.items()}
    return sorted(told.tunnels, key=lambda t: t.name), told.epic_addresses, endpoints


def looked_up(objects: Objects, workload: WorkloadNode) -> Any:
    """The same by looking at everything."""

    def of(kind: Any) -> list[Any]:
        return [obj for obj in objects.values() if isinstance(obj, kind)]

    tunnels = [found for found in of(Tunnel) if key_of(found).workload == workload]
    used = {found.spec.epic_node for found in tunnels}
    endpoints = {}
    for gateway in {found.spec.proxy for found in tunnels if not found.deleting}:
        behind = workload_endpoints(proxy_services(gateway, of(GWRoute)), of(GWEndpointSlice))
        endpoints[gateway] = frozenset(behind[workload][1]) if workload in behind else frozenset()
    addresses = {node.name: node.spec.address for node in of(Node) if node.name in used}
    return sorted(tunnels, key=lambda found: found.name), addresses, endpoints


def thrown(dice: random.Random) -> Resource:
    """Any object in any state."""
    name = f"x{dice.randint(0, 4)}"
    some = dice.sample(NODES, dice.randint(0, 3))
    match dice.choice(("route", "piece", "tunnel", "node")):
        case "route":
            parents = dice.sample((*GATEWAYS, "made-up"), dice.randint(0, 3))
            return route(name, parents, dice.sample(SERVICES, dice.randint(1, 3)))
        case "piece":
            at = [(f"10.0.0.{dice.randint(1, 5)}", node) for node in (*some, *some)]
            at += [("127.0.0.1", "n0")] if dice.random() < 0.2 else []
            known = dice.sample(NODES, dice.randint(1, 3))
            return piece(name, dice.choice(SERVICES), at, dice.choice("cd"), known)
        case "tunnel":
            deleting = dice.random() < 0.3
            ends = dice.choice(GATEWAYS), dice.choice(EPIC_NODES), dice.choice(NODES), dice.choice("cd")
            return tunnel(str(dice.randint(1, 12)), *ends, deleting=deleting)
        case _:
            return epic_node(dice.choice(EPIC_NODES), f"192.0.2.{dice.randint(1, 2)}")


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_follows_the_changes_and_who_is_told_something_else_is_known(seed: int) -> None:
    dice = random.Random(seed)
    objects: Objects = {}
    index = WorkloadIndex("a")
    before = {workload: looked_up(objects, workload) for workload in WORKLOADS}
    for _ in range(200):
        obj = thrown(dice)
        if dice.random() < 0.3:
            objects.pop((obj.kind, obj.name), None)
            touched = index.apply(gone(obj))
        else:
            objects[obj.kind, obj.name] = obj
            touched = index.apply(change(obj))
        after = {workload: looked_up(objects, workload) for workload in WORKLOADS}
        assert {workload: made_of(index, workload) for workload in WORKLOADS} == after
        assert {workload for workload in WORKLOADS if before[workload] != after[workload]} <= touched
        before = after


@pytest.fixture
def site() -> WorkloadIndex:
    """Two gateways with tunnels to two of three nodes; requests of the first go to s0, which is on all."""
    index = WorkloadIndex("a")
    for node in EPIC_NODES:
        index.note(epic_node(node))
    for number, (gateway, node) in enumerate(((g, n) for g in ("g0", "g1") for n in ("n0", "n1")), 1):
        index.note(tunnel(str(number), gateway, "e1", node))
    index.note(route("r0", ["g0"], ["s0"]))
    index.note(piece("p0", "s0", [("10.0.0.1", "n0"), ("10.0.0.2", "n1"), ("10.0.0.3", "n2")]))
    return index


def nodes(*names: str) -> set[WorkloadNode]:
    return {WorkloadNode("c", name) for name in names}


def test_a_pod_that_moves_is_said_to_the_nodes_that_it_leaves_and_comes_to(site: WorkloadIndex) -> None:
    here = [("10.0.0.1", "n0"), ("10.0.0.2", "n1"), ("10.0.0.3", "n2")]
    assert site.note(piece("p0", "s0", here)) == set()
    assert site.note(piece("p0", "s0", [*here, ("10.0.0.4", "n0")])) == nodes("n0")
    assert site.note(piece("p0", "s0", [*here, ("10.0.0.4", "n1")])) == nodes("n0", "n1")
    assert site.note(piece("p0", "s0", [*here, ("10.0.0.4", "n2")])) == nodes("n1"), "no tunnel leads to n2"


def test_endpoints_of_what_nobody_sends_requests_to_are_said_to_nobody(site: WorkloadIndex) -> None:
    assert site.note(piece("p1", "s1", [("10.0.0.7", "n0")])) == set()
    assert site.note(route("r1", ["g2", "made-up"], ["s1"])) == set(), "without a tunnel"
    assert site.note(route("r1", ["g1"], ["s1"])) == nodes("n0")
    assert site.note(route("r2", ["g1"], ["s1"])) == set(), "it leads there already"


def test_another_accounts_changes_touch_nobody(site: WorkloadIndex) -> None:
    for obj in (piece("p0", "s0", []), route("r0", ["g0"], ["s1"]), tunnel("1", "g0", "e1", "n0")):
        metadata = obj.metadata.model_copy(update={"namespace": "b"})
        assert site.note(obj.model_copy(update={"metadata": metadata})) == set()
    assert len(made_of(site, WorkloadNode("c", "n0"))[0]) == 2


def test_an_epic_nodes_report_touches_nobody_and_its_address_those_that_it_has_tunnels_to(
    site: WorkloadIndex,
) -> None:
    assert site.note(epic_node("e1", problems=["x"])) == set()
    assert site.note(epic_node("e2", "192.0.2.77")) == set(), "no tunnel comes from it"
    assert site.note(epic_node("e1", "192.0.2.77")) == nodes("n0", "n1")


def test_nothing_is_kept_of_what_is_gone() -> None:
    index = WorkloadIndex("a")
    there = [
        epic_node("e1"),
        tunnel("1", "g0", "e1", "n0"),
        tunnel("2", "g0", "e1", "n0", deleting=True),
        route("r0", ["g0", "made-up"], ["s0", "s1"]),
        piece("p0", "s0", [("10.0.0.1", "n0"), ("10.0.0.3", "n2")]),
    ]
    for obj in there:
        index.note(obj)
    for obj in there:
        index.apply(gone(obj))
    held = {name: kept for name, kept in vars(index).items() if name not in {"_account", "_unreadable"}}
    assert held == {name: {} for name in held}
