# SPDX-License-Identifier: Apache-2.0
"""Underlays of all kinds: both families, several lanes and interfaces, and addresses that change.

- Any inner family goes over any outer one; lanes and spread ports do too.
- A workload node's tunnel follows the kernel's route to the EPIC node: source, interface, and back.
- An underlay interface that is missing stops nothing; one that comes is used.
- Pods with a veth of their own are delivered to past the stack.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from agent_control import INSIDE, INSIDE6, TUNNEL_ID, Gateway, snapshot
from agent_namespaces import Namespace
from agent_node import FAR, UNDERLAY, UNDERLAY6, Node, endpoints_at, eventually, plane
from agent_workload import ADDRESS, ADDRESS6, Workload, tunnel_list

from epic.bpf.dataplane import Endpoint, Pair

pytestmark = pytest.mark.root

Make = Callable[..., Workload]


@pytest.fixture
async def make(node: Node, tmp_path: Path, bpffs: Path) -> AsyncIterator[Make]:
    """Makes the one workload node of the test; its EPIC node runs already."""
    made: list[Workload] = []

    def build(**options: object) -> Workload:
        directory = tmp_path / "workload"
        directory.mkdir()
        made.append(Workload(node, directory, bpffs / f"{tmp_path.name}-workload", **options))
        made[0].start_api()
        return made[0]

    node.start_agent()
    await node.control.report(lambda _: True, 15)
    node.add_instance()
    yield build
    for workload in made:
        workload.close()


def endpoints(workload: Workload) -> dict[Pair, Endpoint]:
    with workload.namespace:
        return endpoints_at(workload.pins)


def fetch(node: Node, backend: str) -> str:
    """The backend's page, fetched from the instance's namespace as its Envoy would."""
    version = ip_address(backend).version
    host = backend if version == 4 else f"[{backend}]"
    source = str(INSIDE if version == 4 else INSIDE6)
    command = ["curl", "-sS", "--max-time", "2", "--interface", source, f"http://{host}:8080/"]
    with node.instance:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


async def works(node: Node, backend: str, within: float = 60) -> None:
    await eventually(lambda: fetch(node, backend).startswith("backend"), within, f"an answer of {backend}")


def metrics(namespace: Namespace) -> str:
    return namespace.run("curl -sS http://127.0.0.1:9101/metrics")


@pytest.mark.parametrize("epic", [UNDERLAY, UNDERLAY6])
async def test_both_families_go_over_either(node: Node, make: Make, epic: str) -> None:
    workload = make(nat=False, interface="up0", lanes=4, spread=True, checksum=True)
    declared = ADDRESS if epic == UNDERLAY else ADDRESS6
    node.control.publish(Gateway(declared=declared).snapshot(ADDRESS, ADDRESS6))
    workload.api.publish(tunnel_list(ADDRESS, ADDRESS6, epic=epic))
    workload.start_backend()
    workload.start_agent()
    await works(node, ADDRESS)
    await works(node, ADDRESS6)
    peers = [plane(node.pins).peer(TUNNEL_ID, lane) for lane in range(4)]
    seen = [(str(p.address), p.port, str(p.local), p.lanes, p.spread, p.checksum) for p in peers if p]
    assert seen == [(declared, 6080 + lane, epic, 4, True, True) for lane in range(4)]
    mtu = 1452 if epic == UNDERLAY else 1432
    assert f"onlink mtu {mtu}" in workload.namespace.run(f"ip route show {INSIDE}")
    assert f"onlink mtu {mtu}" in workload.namespace.run(f"ip -6 route show {INSIDE6}")
    drops = plane(node.pins).drop_counters(), plane(workload.pins).drop_counters()
    await works(node, ADDRESS, 1)
    await works(node, ADDRESS6, 1)
    assert drops == (plane(node.pins).drop_counters(), plane(workload.pins).drop_counters())


async def test_lanes_go_through_nat(node: Node, make: Make) -> None:
    workload = make(interface="up0", lanes=2)
    node.control.publish(snapshot(ADDRESS))
    workload.api.publish(tunnel_list(ADDRESS))
    workload.start_backend()
    workload.start_agent()
    await works(node, ADDRESS)
    for lane in range(2):
        peer = plane(node.pins).peer(TUNNEL_ID, lane)
        assert peer is not None
        assert (str(peer.address), peer.spread) == (FAR, False)


async def test_another_address_is_used_at_once(node: Node, make: Make) -> None:
    workload = make(nat=False, interface="up0")
    node.control.publish(snapshot("192.168.77.7"))
    workload.api.publish(tunnel_list("192.168.77.7"))
    workload.namespace.run("ip addr add 192.168.77.7/32 dev lo")
    workload.start_backend()
    workload.start_agent()
    await works(node, "192.168.77.7")
    with node.instance:
        connection = socket.create_connection(("192.168.77.7", 8080), 3, (str(INSIDE), 0))
    workload.namespace.run(
        f"ip addr del {ADDRESS}/24 dev up0",
        "ip addr add 192.168.50.99/24 dev up0",
        "ip route add default via 192.168.50.1",
    )
    await eventually(lambda: "192.168.50.99" in str(plane(node.pins).peer(TUNNEL_ID)), 2, "the new address")
    await works(node, "192.168.77.7", 1)
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200 OK")
    assert 'event="moved"} 1' in metrics(node.node)


async def test_a_tunnel_follows_the_route_to_another_interface(node: Node, make: Make) -> None:
    workload = make(nat=False, interfaces=["gone0", "up0", "up1"])
    node.control.publish(snapshot("192.168.77.7"))
    workload.api.publish(tunnel_list("192.168.77.7"))
    workload.namespace.run("ip addr add 192.168.77.7/32 dev lo")
    workload.start_backend()
    workload.start_agent()
    await works(node, "192.168.77.7")
    node.far.veth("lan1", workload.namespace, "up1")
    node.far.run("ip addr add 192.168.60.1/24 dev lan1")
    workload.namespace.run(
        "ip addr add 192.168.60.11/24 dev up1",
        "ip link set up1 mtu 1400",
        f"ip route add {UNDERLAY}/32 via 192.168.60.1",
    )
    await works(node, "192.168.77.7", 5)
    await eventually(lambda: "192.168.60.11" in str(plane(node.pins).peer(TUNNEL_ID)), 5, "the other address")
    await eventually(lambda: "dev up1 onlink mtu 1352" in reply_route(workload), 5, "the smaller MTU")
    workload.namespace.run("ip link del up1")
    await works(node, "192.168.77.7", 5)
    await eventually(lambda: "dev up0 onlink mtu 1452" in reply_route(workload), 5, "the larger MTU")


def reply_route(workload: Workload) -> str:
    return workload.namespace.run(f"ip route show {INSIDE} proto 50")


async def test_pods_are_delivered_to_past_the_stack(node: Node, make: Make) -> None:
    workload, pod = make(nat=False, interface="up0", delivery="pods"), Namespace()
    address = "10.244.0.5"
    workload.namespace.sysctl("ip_forward", 1)
    workload.namespace.veth("pod0", pod, "eth0")
    workload.namespace.run("ip addr add 169.254.1.1/32 dev pod0", f"ip route add {address}/32 dev pod0")
    pod.run(f"ip addr add {address}/32 dev eth0", "ip route add default via 169.254.1.1 dev eth0 onlink")
    node.control.publish(snapshot(address, ADDRESS))
    workload.api.publish(tunnel_list(address, ADDRESS))
    workload.start_backend(pod)
    workload.start_agent()
    await works(node, address)
    key = (INSIDE, IPv4Address(address))
    assert endpoints(workload) == {
        key: Endpoint(TUNNEL_ID, interface="pod0"),
        (INSIDE, IPv4Address(ADDRESS)): Endpoint(TUNNEL_ID),
    }
    assert "pod_ingress" in workload.namespace.run("tc filter show dev pod0 ingress")
    workload.namespace.run("ip route add 10.244.0.0/24 dev pod0", f"ip route del {address}/32")
    await eventually(lambda: endpoints(workload)[key] == Endpoint(TUNNEL_ID), 5)
    await works(node, address, 5)
    assert "pod_ingress" not in workload.namespace.run("tc filter show dev pod0 ingress")
    pod.close()


async def test_an_interface_that_is_no_longer_named_is_left(node: Node, make: Make) -> None:
    workload = make(nat=False, interfaces=["up0", "up1"])
    node.far.veth("lan1", workload.namespace, "up1")
    workload.api.publish(tunnel_list(ADDRESS))

    def programs(interface: str) -> bool:
        return "workload_underlay" in workload.namespace.run(f"tc filter show dev {interface} ingress")

    workload.start_agent()
    await eventually(lambda: programs("up0") and programs("up1"), 60, "the programs")
    workload.stop_agent()
    workload.configure(underlay={"interface": "up0"})
    workload.start_agent()
    await eventually(lambda: not programs("up1"), 60, "the removal of the programs")
    assert programs("up0")


async def test_xdp_takes_data_out_as_long_as_it_is_asked_for(node: Node, make: Make) -> None:
    workload = make(nat=False, interface="up0", receive="xdp")

    def configure(receive: str) -> None:
        node.stop_agent()
        node.configure(underlay={"interface": "up0", "address": UNDERLAY, "receive": receive})
        node.start_agent()

    def in_use() -> list[bool]:
        return ["prog/xdp" in end.run("ip link show up0") for end in (node.node, workload.namespace)]

    configure("xdp")
    node.control.publish(snapshot(ADDRESS, ADDRESS6))
    workload.api.publish(tunnel_list(ADDRESS, ADDRESS6))
    workload.start_backend()
    workload.start_agent()
    await works(node, ADDRESS)
    await works(node, ADDRESS6)
    assert in_use() == [True, True]
    configure("tc")
    workload.stop_agent()
    workload.configure(underlay={"interface": "up0", "receive": "tc"})
    workload.start_agent()
    await eventually(lambda: in_use() == [False, False], 60, "the removal of the XDP programs")
    await works(node, ADDRESS)
    await works(node, ADDRESS6)


@pytest.mark.parametrize("lost", ["up0", "up1"])
async def test_requests_take_all_equal_ways_and_the_one_that_is_left(
    node: Node, make: Make, lost: str
) -> None:
    """The EPIC node's address is no link's: for others, the kernel prefers the way out of their link."""
    workload, local = make(nat=False, interface="up0", spread=True), "172.30.100.2"
    node.node.veth("up1", node.far, "up1")
    node.node.sysctl("fib_multipath_hash_policy", 1)
    node.node.run(
        f"ip addr add {local}/32 dev lo",
        "ip addr add 172.30.12.2/24 dev up1",
        f"ip route replace 192.168.0.0/16 src {local} nexthop via {FAR} nexthop via 172.30.12.1",
    )
    node.far.run(
        "ip addr add 172.30.12.1/24 dev up1",
        f"ip route add {local} nexthop via {UNDERLAY} nexthop via 172.30.12.2",
    )
    node.stop_agent()
    node.configure(underlay={"interfaces": ["up0", "up1"], "address": local})
    node.start_agent()
    node.control.publish(snapshot(ADDRESS))
    workload.api.publish(tunnel_list(ADDRESS, epic=local))
    workload.start_backend()
    workload.start_agent()
    await works(node, ADDRESS)

    def sent() -> list[int]:
        links = (json.loads(node.node.run(f"ip -j -s link show {name}"))[0] for name in ("up0", "up1"))
        return [link["stats64"]["tx"]["packets"] for link in links]

    def carried(flows: int) -> list[int]:
        before = sent()
        assert all(fetch(node, ADDRESS).startswith("backend") for _ in range(flows))
        return [new - old for old, new in zip(before, sent(), strict=True)]

    await eventually(lambda: min(carried(8)) > 8, 60, "the use of both ways")
    for namespace in (node.node, node.far):
        namespace.run(f"ip link set {lost} down")
    await works(node, ADDRESS, 3)
    assert min(carried(8)) == 0
