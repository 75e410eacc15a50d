# SPDX-License-Identifier: Apache-2.0
"""The whole path: from an instance through NAT to a workload node and back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import eventually
from path_network import EPIC, INSIDE, KEY, NAT_OUTER, NODE, TUNNEL, Network, Plan, hello, udp_socket
from traffic import DATA, pings, tcp_pair, transfer

from epic.bpf.packets import wire

pytestmark = pytest.mark.root


@pytest.fixture
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    built = Network(bpffs, object_file)
    yield built
    built.close()


@pytest.fixture
def agent(network: Network) -> Iterator[socket.socket]:
    """The workload agent's socket, after its first hello."""
    network.program()
    with udp_socket(network.node, NODE, 6080) as opened:
        hello(opened)
        assert eventually(lambda: network.gateway.peer(TUNNEL) is not None)
        yield opened


@pytest.mark.parametrize("nats", [0, 2])
def test_any_number_of_nats_may_be_in_between(bpffs: Path, object_file: Path, nats: int) -> None:
    network = Network(bpffs, object_file, Plan(nats=nats))
    try:
        network.program()
        network.connect()
        peer = network.gateway.peer(TUNNEL)
        assert peer is not None
        assert (peer.address == NODE) == (nats == 0)
        client, server = tcp_pair(network)
        with client, server:
            assert transfer(client, server) == DATA
            assert transfer(server, client) == DATA
        assert network.dropped() == {}
    finally:
        network.close()


def test_lanes_cross_a_nat_and_survive_its_change(bpffs: Path, object_file: Path) -> None:
    network = Network(bpffs, object_file)
    try:
        network.program(far={"lanes": 4})
        network.connect(4)
        client, server = tcp_pair(network)
        with client, server:
            seen = [network.gateway.peer(TUNNEL, lane) for lane in range(4)]
            assert len({peer.port for peer in seen if peer}) == 4
            assert transfer(client, server) == DATA
            network.nat.run(f"ip addr del {NAT_OUTER}/24 dev out", "ip addr add 172.30.2.9/24 dev out")
            network.connect(4)
            assert eventually(lambda: all(moved_to(network, "172.30.2.9", lane) for lane in range(4)))
            assert transfer(client, server) == DATA
            assert transfer(server, client) == DATA
        assert network.dropped() == {}
    finally:
        network.close()


def moved_to(network: Network, address: str, lane: int = 0) -> bool:
    peer = network.gateway.peer(TUNNEL, lane)
    return peer is not None and str(peer.address) == address


def test_before_the_first_hello_nothing_leaves(network: Network) -> None:
    network.program()
    assert not pings(network)
    assert network.gateway.drop_counters()["tunnel_unresolved"] == 1


def test_after_the_first_hello_packets_cross_both_ways(network: Network, agent: socket.socket) -> None:
    assert pings(network, 3)
    peer = network.gateway.peer(TUNNEL)
    assert peer is not None
    assert peer.address == NAT_OUTER
    near, far = network.gateway.tunnel_counters()[TUNNEL], network.workload.tunnel_counters()[TUNNEL]
    assert (near.tx_packets, near.rx_packets) == (3, 3)
    assert (near.tx_packets, near.tx_bytes) == (far.rx_packets, far.rx_bytes)
    assert (near.rx_packets, near.rx_bytes) == (far.tx_packets, far.tx_bytes)


def test_a_hello_is_answered_to_where_it_came_from(network: Network, agent: socket.socket) -> None:
    with udp_socket(network.epic, EPIC, 6080) as epic_agent:
        payload = hello(agent)
        received, source = epic_agent.recvfrom(100)
        assert received == payload
        request = wire.decode(received, KEY)
        peer = network.gateway.peer(TUNNEL)
        assert peer is not None
        assert source == (str(peer.address), peer.port)
        answer = wire.Control(wire.Kind.HELLO_ACK, TUNNEL, request.counter, 5, request.sent_ns)
        epic_agent.sendto(wire.encode(answer, KEY), source)
        assert wire.decode(agent.recv(100), KEY) == answer
    far = network.workload.peer(TUNNEL)
    assert far is not None
    assert (far.address, far.counter) == (EPIC, request.counter)


def test_a_wrong_tag_moves_nothing_and_is_counted(network: Network, agent: socket.socket) -> None:
    before = network.gateway.peer(TUNNEL)
    with udp_socket(network.node, NODE, 6081) as stranger:
        hello(stranger, key=bytes(16))
    assert eventually(lambda: network.gateway.drop_counters()["tag_wrong"] == 1)
    assert network.gateway.peer(TUNNEL) == before
    assert pings(network)


def test_a_connection_survives_another_nat_address(network: Network, agent: socket.socket) -> None:
    client, server = tcp_pair(network)
    network.nat.run(f"ip addr del {NAT_OUTER}/24 dev out", "ip addr add 172.30.2.9/24 dev out")
    assert eventually(lambda: bool(hello(agent)) and moved_to(network, "172.30.2.9"))
    with client, server:
        client.sendall(b"still here")
        assert server.recv(100) == b"still here"
        server.sendall(b"me too")
        assert client.recv(100) == b"me too"


@pytest.mark.parametrize(
    "offloads", ["tso on gso on gro on", "tso off gso off gro on", "tso off gso off gro off tx off"]
)
@pytest.mark.parametrize("direction", ["request", "reply"])
def test_bulk_data_arrives_whole(
    network: Network, agent: socket.socket, offloads: str, direction: str
) -> None:
    for namespace in (network.epic, network.node):
        namespace.run(f"ethtool -K up0 {offloads}")
    client, server = tcp_pair(network)
    with client, server:
        ends = (client, server) if direction == "request" else (server, client)
        assert transfer(*ends) == DATA
    assert not any(network.gateway.drop_counters().values())
    assert not any(network.workload.drop_counters().values())


def test_a_fragmented_inner_datagram_arrives_whole(network: Network, agent: socket.socket) -> None:
    with udp_socket(network.instance, INSIDE, 1000) as client, udp_socket(network.node, NODE, 2000) as server:
        client.sendto(DATA[:6000], (str(NODE), 2000))
        assert server.recv(10000) == DATA[:6000]
        assert network.gateway.tunnel_counters()[TUNNEL].tx_packets > 1


def test_no_inside_address_is_seen_between_the_nodes(network: Network, agent: socket.socket) -> None:
    network.nat.nft(
        """table ip watch {
             counter inside { }
             counter tunnel { }
             chain first {
               type filter hook prerouting priority raw;
               ip saddr 100.64.0.0/10 counter name inside
               ip daddr 100.64.0.0/10 counter name inside
               udp dport 6080 counter name tunnel
             }
           }"""
    )
    assert pings(network, 2)
    with network.node:
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        network.node.run("ip addr add 192.168.50.12/32 dev up0")
        stranger.bind(("192.168.50.12", 0))
        stranger.sendto(b"in the clear?", (str(INSIDE), 1))
    assert eventually(lambda: network.workload.drop_counters()["source_not_endpoint"] == 1)
    assert "packets 0 " in network.nat.run("nft list counter ip watch inside")
    assert "packets 0 " not in network.nat.run("nft list counter ip watch tunnel")


def test_the_programs_are_replaced_under_a_running_connection(
    network: Network, agent: socket.socket, tmp_path: Path
) -> None:
    client, server = tcp_pair(network)
    with client, server:
        network.reload(another_version(network, tmp_path))
        assert transfer(client, server) == DATA
    assert not any(network.gateway.drop_counters().values())


def another_version(network: Network, directory: Path) -> Path:
    """The same programs in a file that differs."""
    changed = directory / "gue.bpf.o"
    changed.write_bytes(network.object_file.read_bytes() + b"\0")
    return changed


def test_what_others_attached_stays(network: Network, agent: socket.socket) -> None:
    foreign = "tc filter add dev up0 ingress prio 1 protocol ip u32 match ip dport 9 0xffff classid 1:1"
    network.epic.run(foreign)
    assert pings(network)
    with network.epic:
        network.gateway.unload()
    assert "u32" in network.epic.run("tc filter show dev up0 ingress")
    assert "epic" not in network.epic.run("tc filter show dev up0 ingress")


def test_unload_leaves_nothing(network: Network, agent: socket.socket, bpffs: Path) -> None:
    with network.epic:
        network.gateway.unload()
    for interface in ("up0", "epg644000010000"):
        assert "clsact" not in network.epic.run(f"tc qdisc show dev {interface}")
    assert not (bpffs / "gateway").exists()
