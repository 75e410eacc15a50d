# SPDX-License-Identifier: Apache-2.0
"""Underlays of several links and addresses, addresses and programs that change, and filters of others."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from foreign import Counter
from namespaces import Namespace, eventually
from path_network import INSIDE, NODE, TUNNEL, Network, Plan, hello, udp_socket
from traffic import exchange, pings, tcp_between, tcp_pair

from epic.bpf.dataplane import Address, Endpoint
from epic.bpf.packets import wire

pytestmark = pytest.mark.root

ROUTED = Plan(nats=0, links=2)
LOOPBACKS: dict[int, Address] = {4: IPv4Address("172.30.100.2"), 6: IPv6Address("2001:db8:100::2")}
OVER = pytest.mark.parametrize("over", [4, 6])
SECOND_EPIC = IPv4Address("172.30.3.2")
POD = IPv4Address("10.8.0.5")
SMALL = bytes(1000)
SO_RCVBUFFORCE = 33


@pytest.fixture
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    built = Network(bpffs, object_file, ROUTED)
    yield built
    built.close()


@pytest.fixture
def equal_cost(bpffs: Path, object_file: Path, over: int) -> Iterator[Network]:
    """Both links lead to both ends, and each packet's ports say by which one it goes."""
    network = Network(bpffs, object_file, Plan(over=over, nats=0, links=2))
    loopback = LOOPBACKS[over]
    first, second = ("172.30.2", "172.30.3") if over == 4 else ("2001:db8:2:", "2001:db8:3:")
    dot = "." if over == 4 else ":"
    for namespace in (network.epic, network.nat):
        namespace.sysctl(f"ipv{over}/fib_multipath_hash_policy", 1)
    network.epic.run(
        f"ip addr add {loopback}/{32 if over == 4 else 128} dev lo",
        f"ip nexthop add id 1 via {first}{dot}1 dev up0",
        f"ip nexthop add id 2 via {second}{dot}1 dev up1",
        "ip nexthop add id 10 group 1/2",
        f"ip route replace {'192.168.50.0/24' if over == 4 else '2001:db8:50::/64'} nhid 10",
    )
    network.nat.run(
        f"ip route add {loopback} nexthop via {first}{dot}2 dev out nexthop via {second}{dot}2 dev out1"
    )
    yield network
    network.close()


def packets(namespace: Namespace, interface: str) -> tuple[int, int]:
    """Received and sent by the interface."""
    (link,) = json.loads(namespace.run(f"ip -j -s link show {interface}"))
    return link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"]


def load_of_links(network: Network, connections: int = 40) -> list[tuple[int, int]]:
    """What both links carry of many connections, received and sent."""
    before = [packets(network.epic, name) for name in ("up0", "up1")]
    for number in range(connections):
        client, server = tcp_pair(network, port=10000 + number)
        with client, server:
            exchange(client, server, SMALL)
    after = [packets(network.epic, name) for name in ("up0", "up1")]
    return [(new[0] - old[0], new[1] - old[1]) for old, new in zip(before, after, strict=True)]


@OVER
def test_one_port_takes_one_link(equal_cost: Network, over: int) -> None:
    loopback = LOOPBACKS[over]
    equal_cost.program(far={"remote": loopback}, local=loopback)
    equal_cost.connect(to=loopback)
    load = load_of_links(equal_cost, 5)
    assert min(sent for _, sent in load) < 5 < max(sent for _, sent in load)


@OVER
@pytest.mark.parametrize("lanes", [1, 4], ids=["any port", "lanes"])
def test_flows_spread_over_equal_links(equal_cost: Network, over: int, lanes: int) -> None:
    spread, loopback = lanes == 1, LOOPBACKS[over]
    far = {"remote": loopback, "lanes": lanes, "spread": spread}
    equal_cost.program(far=far, local=loopback, remote=equal_cost.plan.node if spread else None)
    flags = wire.Flags.SPREAD if spread else wire.NO_FLAGS
    # Which link a lane takes is up to the hash: other ports are as good, and a node has four.
    equal_cost.connect(lanes, flags, loopback)
    load = load_of_links(equal_cost)
    if spread:
        # What is received was spread by the router, which knows more of these packets than their ports.
        assert min(sent for _, sent in load) > 20
    assert equal_cost.dropped() == {}
    ports = {peer.port for lane in range(lanes) if (peer := equal_cost.gateway.peer(TUNNEL, lane))}
    assert ports == set(range(6080, 6080 + lanes))


@OVER
def test_lanes_differ_on_the_wire(equal_cost: Network, over: int) -> None:
    """Routers and network cards see as many flows as there are lanes, both ways."""
    loopback = LOOPBACKS[over]
    equal_cost.program(far={"remote": loopback, "lanes": 4}, local=loopback)
    equal_cost.connect(4, to=loopback)
    counters = [f"counter {way}{port} {{ }}" for port in range(6080, 6084) for way in ("up", "down")]
    rules = ["type filter hook prerouting priority raw"]
    for port in range(6080, 6084):
        rules.append(f"udp sport {port} udp dport 6080 counter name up{port}")
        rules.append(f"udp sport 6080 udp dport {port} counter name down{port}")
    chain = ["chain first {", *rules, "}"]
    equal_cost.nat.nft("\n".join(["table inet watch {", *counters, *chain, "}\n"]))
    load_of_links(equal_cost)
    for port in range(6080, 6084):
        for way in ("up", "down"):
            listed = equal_cost.nat.run(f"nft list counter inet watch {way}{port}")
            assert "packets 0 " not in listed, (way, port)


def test_a_tunnel_may_move_to_another_link_and_address_of_the_epic_node(network: Network) -> None:
    """The node is told another address of the EPIC node; a connection goes on."""
    network.program()
    network.connect()
    client, server = tcp_pair(network)
    with client, server:
        exchange(client, server, SMALL)
        network.epic.run("ip route replace 192.168.50.0/24 via 172.30.3.1 dev up1")
        with network.node:
            network.workload.set_tunnel(network.far_tunnel(remote=SECOND_EPIC))
        with udp_socket(network.node, NODE, 6080) as agent:
            hello(agent, to=SECOND_EPIC)
        assert eventually(lambda: bool((peer := network.gateway.peer(TUNNEL)) and peer.local == SECOND_EPIC))
        before = packets(network.epic, "up0")
        exchange(client, server)
        after = packets(network.epic, "up0")
    assert after[1] - before[1] < 5
    assert after[0] - before[0] < 5
    assert network.dropped() == {}


def test_a_connection_survives_another_address_of_the_workload_node(network: Network) -> None:
    second = IPv4Address("192.168.50.12")
    network.node.run(f"ip addr add {POD}/32 dev lo")
    network.program()
    with network.epic:
        network.gateway.set_endpoint(INSIDE, POD, Endpoint(TUNNEL))
    with network.node:
        network.workload.set_endpoint(INSIDE, POD, Endpoint(TUNNEL))
    network.connect()
    client, server = tcp_between(network.instance, INSIDE, network.node, POD, POD)
    with client, server:
        exchange(client, server, SMALL)
        network.node.sysctl("ipv4/conf/up0/promote_secondaries", 1)
        network.node.run(
            f"ip addr add {second}/24 dev up0",
            f"ip addr del {NODE}/24 dev up0",
            "ip route replace default via 192.168.50.1",
        )
        with network.node:
            network.workload.attach_underlay("up0", "workload")
            network.workload.set_tunnel(network.far_tunnel(local=second))
        with udp_socket(network.node, second, 6080) as agent:
            hello(agent)
        assert eventually(lambda: bool((peer := network.gateway.peer(TUNNEL)) and peer.address == second))
        exchange(client, server)


class Stream:
    """A datagram a millisecond from the instance, each echoed by the node."""

    def __init__(self, network: Network) -> None:
        self._client = udp_socket(network.instance, INSIDE, 1000)
        self._server = udp_socket(network.node, NODE, 2000)
        for opened in (self._client, self._server):
            opened.settimeout(0.2)
            # A test that waits for the processor must not lose packets itself.
            opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self._sent_all, self._stop = threading.Event(), threading.Event()
        self.sent = 0
        self.back: set[int] = set()
        self._sender = threading.Thread(target=self._send)
        self._receivers = [threading.Thread(target=run) for run in (self._echo, self._take)]

    def __enter__(self) -> Stream:
        for thread in (self._sender, *self._receivers):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sent_all.set()
        self._sender.join()
        eventually(lambda: len(self.back) == self.sent)
        self._stop.set()
        for thread in self._receivers:
            thread.join()
        self._client.close()
        self._server.close()

    def _send(self) -> None:
        while not self._sent_all.wait(0.001):
            self._client.sendto(self.sent.to_bytes(4, "big"), (str(NODE), 2000))
            self.sent += 1

    def _echo(self) -> None:
        for data, source in self._received(self._server):
            self._server.sendto(data, source)

    def _take(self) -> None:
        for data, _ in self._received(self._client):
            self.back.add(int.from_bytes(data, "big"))

    def _received(self, opened: socket.socket) -> Iterator[tuple[bytes, Any]]:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                yield opened.recvfrom(100)


@pytest.mark.parametrize("receive", ["tc", "xdp"])
def test_no_packet_is_lost_when_agents_die_and_come_back_with_other_programs(
    bpffs: Path, object_file: Path, tmp_path: Path, receive: str
) -> None:
    network = Network(bpffs, object_file, Plan(nats=0, receive="xdp" if receive == "xdp" else "tc"))
    try:
        network.program()
        network.connect()
        assert pings(network)
        with Stream(network) as stream:
            for version in range(3):
                changed = tmp_path / "gue.bpf.o"
                changed.write_bytes(object_file.read_bytes() + bytes([version]))
                network.reload(changed)
                network.program()
        assert stream.sent > 100
        assert stream.back == set(range(stream.sent))
        assert network.dropped() == {}
    finally:
        network.close()


def test_filters_of_others_run_before_and_after_ours(network: Network, bpffs: Path) -> None:
    """What is before us sees the tunnel's packets, what is behind us sees what is not ours."""
    network.program()
    network.connect()
    before = Counter(network.epic, "up0", 1, bpffs / "foreign")
    behind = Counter(network.epic, "up0", 90, bpffs / "foreign")
    with udp_socket(network.node, NODE, 3000) as stranger:
        stranger.sendto(b"not the tunnel's", ("172.30.2.2", 9))
    assert eventually(lambda: behind.packets() > 0)
    others = behind.packets()
    assert pings(network, 3)
    assert before.packets() >= others + 3
    assert behind.packets() < others + 3
    with network.epic:
        network.gateway.unload()
    listed = network.epic.run("tc filter show dev up0 ingress")
    assert listed.count("foreign") == 2
    assert "epic_" not in listed


def test_an_interface_can_be_left_and_joined_again(network: Network) -> None:
    network.program()
    network.connect()
    with network.epic:
        network.gateway.detach_underlay("up0")
        network.gateway.detach_underlay("nothere")
    assert "epic_" not in network.epic.run("tc filter show dev up0 ingress")
    assert not pings(network)
    with network.epic:
        network.gateway.attach_underlay("up0", "gateway")
    assert pings(network)


def test_ports_beside_the_tunnels_are_the_hosts_own(network: Network) -> None:
    network.program()
    network.connect()
    with udp_socket(network.epic, IPv4Address("172.30.2.2"), 6081) as server:
        with udp_socket(network.node, NODE, 3000) as client:
            client.sendto(b"for another service", ("172.30.2.2", 6081))
        assert server.recv(100) == b"for another service"
