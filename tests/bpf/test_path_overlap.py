# SPDX-License-Identifier: Apache-2.0
"""Two workload networks with the same pod addresses behind one instance."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from frames import GENERATION
from namespaces import eventually, join
from path_network import (
    INSIDE,
    INSIDE6,
    KEY,
    TUNNEL,
    Address,
    Network,
    Plan,
    udp_socket,
)
from traffic import exchange, family, tcp_between

from epic.bpf.dataplane import Dataplane, Endpoint
from epic.bpf.packets import wire

pytestmark = pytest.mark.root

POD, POD6 = IPv4Address("10.8.0.5"), IPv6Address("fd00:8::5")
MAPPED, MAPPED6 = IPv4Address("240.17.2.9"), IPv6Address("fd65:7069:6301::9")
SECOND_NODE, SECOND_TUNNEL = IPv4Address("192.168.60.11"), 8
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


class Overlap(Network):
    """The node has a twin in another network, with a pod of the same address."""

    def __init__(self, pins: Path, object_file: Path) -> None:
        super().__init__(pins, object_file, Plan(six=True, nats=0))
        join(self.nat, "in2", self.second, "up0")
        self.nat.run("ip addr add 192.168.60.1/24 dev in2")
        self.epic.run("ip route add 192.168.60.0/24 via 172.30.2.1")
        self.second.run(f"ip addr add {SECOND_NODE}/24 dev up0", "ip route add default via 192.168.60.1")
        self.nat.run("ip addr add 2001:db8:60::1/64 dev in2")
        self.second.run("ip addr add 2001:db8:60::11/64 dev up0", "ip route add default via 2001:db8:60::1")
        for node in (self.node, self.second):
            node.run(f"ip addr add {POD}/32 dev lo", f"ip addr add {POD6}/128 dev lo")
        self.twin = Dataplane(pins / "twin", object_file)
        with self.second:
            self.twin.load()
            self.twin.attach_underlay("up0", "workload")

    def close(self) -> None:
        with self.second:
            self.twin.unload()
        super().close()

    def program_both(self) -> None:
        """The pod of the first network keeps its address, the second's is mapped."""
        with self.epic:
            self.gateway.set_tunnel(self.tunnel())
            self.gateway.set_tunnel(self.tunnel(id=SECOND_TUNNEL))
            self.gateway.set_endpoints(
                {
                    (INSIDE, POD): Endpoint(TUNNEL),
                    (INSIDE6, POD6): Endpoint(TUNNEL),
                    (INSIDE, MAPPED): Endpoint(SECOND_TUNNEL, real=POD),
                    (INSIDE6, MAPPED6): Endpoint(SECOND_TUNNEL, real=POD6),
                }
            )
        with self.node:
            self.workload.set_tunnel(self.far_tunnel())
            self.workload.set_endpoints({(INSIDE, POD): Endpoint(TUNNEL), (INSIDE6, POD6): Endpoint(TUNNEL)})
        with self.second:
            self.twin.set_tunnel(self.far_tunnel(id=SECOND_TUNNEL, local=SECOND_NODE))
            self.twin.set_endpoints(
                {(INSIDE, POD): Endpoint(SECOND_TUNNEL), (INSIDE6, POD6): Endpoint(SECOND_TUNNEL)}
            )

    def connect_both(self, flags: wire.Flags = wire.NO_FLAGS) -> None:
        self.connect()
        now = time.time_ns()
        hello = wire.Control(wire.Kind.HELLO, SECOND_TUNNEL, now, now, flags=flags, generation=GENERATION)
        with udp_socket(self.second, SECOND_NODE, 6080) as agent:
            agent.sendto(wire.encode(hello, KEY), (str(self.plan.epic), 6080))
        assert eventually(lambda: self.heard() == now)

    def heard(self) -> int:
        """Counter of the second node's last hello."""
        peer = self.gateway.peer(SECOND_TUNNEL)
        return peer.counter if peer else 0


@pytest.fixture
def overlap(bpffs: Path, object_file: Path) -> Iterator[Overlap]:
    built = Overlap(bpffs, object_file)
    built.program_both()
    built.connect_both()
    yield built
    built.close()


def addresses(version: int) -> tuple[Address, Address, Address]:
    return (INSIDE, POD, MAPPED) if version == 4 else (INSIDE6, POD6, MAPPED6)


@FAMILIES
@pytest.mark.parametrize("offloads", ["gso on tso on tx on", "gso off tso off tx off"])
def test_connections_reach_the_network_that_is_meant(overlap: Overlap, version: int, offloads: str) -> None:
    for namespace, name in ((overlap.epic, "up0"), (overlap.second, "up0"), (overlap.instance, "eth0")):
        namespace.run(f"ethtool -K {name} {offloads}")
    near, pod, mapped = addresses(version)
    first = tcp_between(overlap.instance, near, overlap.node, pod, pod)
    second = tcp_between(overlap.instance, near, overlap.second, pod, mapped)
    with first[0], first[1], second[0], second[1]:
        assert second[0].getpeername()[0] == str(mapped)
        assert second[1].getsockname()[0] == str(pod)
        exchange(*first)
        exchange(*second)
    assert overlap.dropped() == {}


@FAMILIES
def test_gso_packets_for_mapped_addresses_get_checksums_too(overlap: Overlap, version: int) -> None:
    with overlap.second:
        overlap.twin.set_tunnel(overlap.far_tunnel(id=SECOND_TUNNEL, local=SECOND_NODE, checksum=True))
    overlap.connect_both(wire.Flags.CHECKSUM)
    near, pod, mapped = addresses(version)
    client, server = tcp_between(overlap.instance, near, overlap.second, pod, mapped)
    with client, server:
        exchange(client, server)
    assert overlap.dropped() == {}
    peer = overlap.gateway.peer(SECOND_TUNNEL)
    assert peer is not None
    assert peer.checksum


@FAMILIES
def test_datagrams_reach_the_network_that_is_meant(overlap: Overlap, version: int) -> None:
    near, pod, mapped = addresses(version)
    with (
        udp_socket(overlap.instance, near, 1000) as client,
        udp_socket(overlap.node, pod, 2000) as first,
        udp_socket(overlap.second, pod, 2000) as second,
    ):
        for server, name in ((first, pod), (second, mapped)):
            for size in (1, 1000, 5000):
                client.sendto(bytes(size), (str(name), 2000))
                assert server.recv(6000) == bytes(size)
                server.sendto(b"from " + bytes(size % 1300), (str(near), 1000))
                answer, source = client.recvfrom(6000)
                assert answer == b"from " + bytes(size % 1300)
                assert source[0] == str(name)


@FAMILIES
def test_datagrams_without_checksum_cross_too(overlap: Overlap, version: int) -> None:
    near, pod, mapped = addresses(version)
    with (
        udp_socket(overlap.instance, near, 1000) as client,
        udp_socket(overlap.second, pod, 2000) as server,
    ):
        client.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
        client.sendto(b"unchecked", (str(mapped), 2000))
        if version == 4:
            assert server.recv(100) == b"unchecked"


@FAMILIES
def test_errors_about_mapped_addresses_find_their_socket(overlap: Overlap, version: int) -> None:
    """A closed port: the answer quotes what was sent, with the address that the sender knows."""
    near, _, mapped = addresses(version)
    with overlap.instance, closing(socket.socket(family(near), socket.SOCK_DGRAM)) as client:
        client.settimeout(2)
        client.bind((str(near), 0))
        client.connect((str(mapped), 2999))
        client.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


@FAMILIES
def test_pings_are_answered_by_the_mapped_address(overlap: Overlap, version: int) -> None:
    near, _, mapped = addresses(version)
    assert "1 received" in overlap.instance.run(f"ping -c 1 -W 1 -I {near} {mapped}")
    assert overlap.gateway.tunnel_counters()[SECOND_TUNNEL].rx_packets == 1
    assert overlap.gateway.tunnel_counters()[TUNNEL].rx_packets == 0
