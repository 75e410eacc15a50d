# SPDX-License-Identifier: Apache-2.0
"""The whole path in all four combinations of IP families: real connections, sizes, offloads, checksums."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import get_args

import pytest
from namespaces import Namespace, eventually, join
from path_network import (
    INSIDE,
    INSIDE6,
    NODE,
    NODE6,
    TUNNEL,
    Address,
    Network,
    Plan,
    udp_socket,
)
from traffic import DATA, exchange, pings, send_segments, tcp_between, tcp_pair

from epic.bpf.dataplane import Endpoint, Pair, Receive, Route
from epic.bpf.packets import wire

pytestmark = pytest.mark.root

OVER = (4, 6)
COMBINATIONS = pytest.mark.parametrize(
    ("network", "inner"),
    [pytest.param(Plan(over, True, 0), inner, id=f"{inner}in{over}") for over in OVER for inner in (4, 6)],
    indirect=["network"],
)
PLANS = pytest.mark.parametrize(
    "network", [pytest.param(Plan(over, True, 0), id=f"over{over}") for over in OVER], indirect=True
)
BOTH_RECEIVE = pytest.mark.parametrize(
    "network",
    [
        pytest.param(Plan(over, True, 0, receive=receive), id=f"over{over} {receive}")
        for over in OVER
        for receive in get_args(Receive)
    ],
    indirect=True,
)
POD, POD6 = IPv4Address("10.8.0.5"), IPv6Address("fd00:8::5")
INNER = (4, 6)


@pytest.fixture
def network(request: pytest.FixtureRequest, bpffs: Path, object_file: Path) -> Iterator[Network]:
    built = Network(bpffs, object_file, request.param)
    built.program()
    built.connect()
    yield built
    built.close()


def ends(inner: int) -> tuple[Address, Address]:
    return (INSIDE, NODE) if inner == 4 else (INSIDE6, NODE6)


def limit_node(network: Network, inner: int) -> None:
    """As the agent does: what the node itself sends to the inside address fits."""
    source, _ = ends(inner)
    via = "192.168.50.1" if inner == 4 else "2001:db8:50::1"
    network.node.run(f"ip route add {source} via {via} mtu {1500 - network.plan.overhead}")


def set_offloads(network: Network, offloads: str) -> None:
    for namespace in (network.epic, network.node):
        namespace.run(f"ethtool -K up0 {offloads}")


@BOTH_RECEIVE
@pytest.mark.parametrize("offloads", ["tso on gso on gro on", "tso off gso off gro off tx off"])
def test_connections_carry_data_both_ways(network: Network, offloads: str) -> None:
    set_offloads(network, offloads)
    for inner in INNER:
        client, server = tcp_pair(network, inner)
        with client, server:
            exchange(client, server)
    assert network.dropped() == {}
    near, far = network.gateway.tunnel_counters()[TUNNEL], network.workload.tunnel_counters()[TUNNEL]
    # How long a packet was is known before a receiver merges packets, not after.
    assert min(near.rx_bytes, near.tx_bytes, far.rx_bytes, far.tx_bytes) > 2 * len(DATA)


@PLANS
def test_a_route_that_the_agent_found_is_taken(network: Network) -> None:
    """With the kernel's own table leading nowhere, so that only the given next hops can have led there."""
    six = network.plan.over == 6
    near = Route(network.plan.node, "up0", ip_address("2001:db8:2::1" if six else "172.30.2.1"))
    far = Route(network.plan.epic, "up0", ip_address("2001:db8:50::1" if six else "192.168.50.1"))
    network.program(far={"route": far}, route=near)
    target = "default" if six else "192.168.50.0/24"
    network.epic.run(f"ip {'-6' if six else '-4'} route del {target}")
    for inner in INNER:
        client, server = tcp_pair(network, inner)
        with client, server:
            exchange(client, server)
    assert network.dropped() == {}


@BOTH_RECEIVE
def test_single_packets_cross_and_are_counted_alike(network: Network) -> None:
    for inner in INNER:
        assert pings(network, 3, inner)
    near, far = network.gateway.tunnel_counters()[TUNNEL], network.workload.tunnel_counters()[TUNNEL]
    assert (near.tx_packets, near.tx_bytes) == (far.rx_packets, far.rx_bytes)
    assert (near.rx_packets, near.rx_bytes) == (far.tx_packets, far.tx_bytes)
    assert near.tx_packets == 6


@BOTH_RECEIVE
def test_fragmented_datagrams_arrive_whole(network: Network) -> None:
    for inner in INNER:
        source, target = ends(inner)
        limit_node(network, inner)
        with (
            udp_socket(network.instance, source, 1000) as client,
            udp_socket(network.node, target, 2000) as server,
        ):
            client.sendto(DATA[:6000], (str(target), 2000))
            received, sender = server.recvfrom(10000)
            assert received == DATA[:6000]
            server.sendto(DATA[6000:15000], sender[:2])
            assert client.recv(10000) == DATA[6000:15000]
    assert network.dropped() == {}


@BOTH_RECEIVE
@pytest.mark.parametrize("offloads", ["gso on gro on", "gso off gro off"])
def test_gso_packets_of_datagrams_arrive_as_datagrams(network: Network, offloads: str) -> None:
    """As QUIC sends them, both ways, with segments that just fit.

    They are cut up where they leave for the underlay, as every network card does it. A veth would hand them
    over whole, and no kernel forgets on the other side that they were in a tunnel.
    """
    set_offloads(network, f"{offloads} tx-udp_tnl-segmentation off")
    for inner in INNER:
        source, target = ends(inner)
        size = 1500 - network.plan.overhead - (28 if inner == 4 else 48)
        with (
            udp_socket(network.instance, source, 1000) as client,
            udp_socket(network.node, target, 2000) as server,
        ):
            for sender, receiver, to in (
                (client, server, (str(target), 2000)),
                (server, client, (str(source), 1000)),
            ):
                for segment in (size, 1200, 100):
                    send_segments(sender, DATA[: 10 * segment - 7], segment, to)
                    got = [receiver.recv(2000) for _ in range(10)]
                    assert b"".join(got) == DATA[: 10 * segment - 7]
                    assert {len(each) for each in got[:-1]} == {segment}
    assert network.dropped() == {}


@COMBINATIONS
def test_who_sends_too_much_is_told_and_goes_on(network: Network, inner: int) -> None:
    """An instance whose interface has the underlay's MTU."""
    network.instance.run("ip link set eth0 mtu 1500")
    fitting = 1500 - network.plan.overhead
    source, target = ends(inner)
    with (
        udp_socket(network.instance, source, 1000) as client,
        udp_socket(network.node, target, 2000) as server,
    ):
        if inner == 4:
            client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: always
        header = 28 if inner == 4 else 48
        client.sendto(DATA[: fitting - header + 1], (str(target), 2000))
        route = f"ip route get {target} from {source}"
        assert eventually(lambda: f"mtu {fitting}" in network.instance.run(route)), network.instance.run(
            route
        )
        client.sendto(DATA[: fitting - header], (str(target), 2000))
        assert server.recv(2000) == DATA[: fitting - header]
    client, stream = tcp_pair(network, inner)
    with client, stream:
        exchange(client, stream)
    assert network.dropped().keys() <= {"too_big"}


@COMBINATIONS
@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksum"])
def test_a_connection_finds_its_size_by_being_told(network: Network, inner: int, checksum: bool) -> None:
    if checksum:
        ask_for_checksums(network)
    network.instance.run("ip link set eth0 mtu 1500")
    limit_node(network, inner)
    client, server = tcp_pair(network, inner)
    with client, server:
        exchange(client, server)
    assert network.dropped().keys() <= {"too_big"}
    assert network.gateway.drop_counters()["too_big"] < 200


def ask_for_checksums(network: Network) -> None:
    network.program(far={"checksum": True})
    network.connect(flags=wire.Flags.CHECKSUM)
    assert eventually(lambda: bool((peer := network.gateway.peer(TUNNEL)) and peer.checksum))


def insist_on_checksums(network: Network) -> None:
    """A middlebox that drops what has no UDP checksum, and counts it."""
    network.nat.nft(
        """table inet insist {
             counter without { }
             chain first {
               type filter hook prerouting priority raw;
               udp dport 6080-6083 udp checksum 0 counter name without drop
             }
           }"""
    )


@PLANS
def test_without_checksums_a_middlebox_that_insists_lets_nothing_through(network: Network) -> None:
    insist_on_checksums(network)
    assert not pings(network)
    assert "packets 1 " in network.nat.run("nft list counter inet insist without")


@BOTH_RECEIVE
@pytest.mark.parametrize("offloads", ["tso on gso on gro on", "tso off gso off gro off tx off"])
def test_with_checksums_everything_passes_a_middlebox_that_insists(network: Network, offloads: str) -> None:
    insist_on_checksums(network)
    set_offloads(network, offloads)
    ask_for_checksums(network)
    for inner in INNER:
        assert pings(network, 2, inner, 1001)
        client, server = tcp_pair(network, inner)
        with client, server:
            exchange(client, server)
        source, target = ends(inner)
        with (
            udp_socket(network.instance, source, 1000) as sender,
            udp_socket(network.node, target, 2000) as receiver,
        ):
            sender.sendto(DATA[:5001], (str(target), 2000))
            assert receiver.recv(6000) == DATA[:5001]
            send_segments(sender, DATA[:9993], 1000, (str(target), 2000))
            assert b"".join(receiver.recv(2000) for _ in range(10)) == DATA[:9993]
    assert "packets 0 " in network.nat.run("nft list counter inet insist without")
    assert network.dropped() == {}


@pytest.fixture
def pod(network: Network) -> Iterator[Namespace]:
    """A pod behind a veth of the node, past the node's stack."""
    made = Namespace(ipv6=True)
    join(network.node, "pod0", made, "eth0")
    made.run(
        f"ip addr add {POD}/32 dev eth0",
        f"ip addr add {POD6}/128 dev eth0",
        "ip route add default via 169.254.0.1 dev eth0 onlink",
        "ip route add default via fe80::1 dev eth0",
        f"ip link set eth0 mtu {1500 - network.plan.overhead}",
    )
    network.node.run("ip addr add 169.254.0.1/32 dev pod0", "ip addr add fe80::1/64 dev pod0")
    with network.node:
        network.workload.attach_pod("pod0")
    yield made
    with network.node:
        network.workload.detach_pod("pod0")
    made.close()


@BOTH_RECEIVE
def test_a_pod_is_served_past_the_nodes_stack(network: Network, pod: Namespace) -> None:
    """The node forwards nothing and has no route to the pod: only the programs can have delivered."""
    endpoints: dict[Pair, Endpoint] = {(INSIDE, POD): Endpoint(TUNNEL), (INSIDE6, POD6): Endpoint(TUNNEL)}
    with network.epic:
        network.gateway.set_endpoints(endpoints)
    with network.node:
        network.workload.set_endpoints({pair: Endpoint(TUNNEL, interface="pod0") for pair in endpoints})
    for near, far in ((INSIDE, POD), (INSIDE6, POD6)):
        client, server = tcp_between(network.instance, near, pod, far, far)
        with client, server:
            exchange(client, server)
    assert network.dropped() == {}
