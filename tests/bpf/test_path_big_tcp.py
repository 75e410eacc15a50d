# SPDX-License-Identifier: Apache-2.0
"""GSO packets beyond 64 KB ("BIG TCP"), which a host sends where somebody has switched it on."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import Namespace
from path_network import Network, Plan
from traffic import exchange, tcp_pair

pytestmark = pytest.mark.root

BIG = 180000
RTM_SETLINK, IFLA_GSO_IPV4_MAX_SIZE = 19, 63


@pytest.fixture
def network(bpffs: Path, object_file: Path, inner: int, over: int) -> Iterator[Network]:
    built = Network(bpffs, object_file, Plan(over=over, six=True, nats=0))
    built.program()
    built.connect()
    for namespace, interface in ((built.node, "up0"), (built.instance, "eth0")):
        namespace.run(f"ip link set {interface} gso_max_size {BIG}")
        if inner == 4:
            allow4(namespace, interface)
    yield built
    built.close()


def allow4(namespace: Namespace, interface: str) -> None:
    """`ip` before version 6.3 cannot, nor can pyroute2."""
    with namespace:
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(interface), 0, 0)
        attribute = struct.pack("=HHI", 8, IFLA_GSO_IPV4_MAX_SIZE, BIG)
        header = struct.pack("=IHHII", 16 + len(link) + len(attribute), RTM_SETLINK, 5, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.send(header + link + attribute)
            (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    assert not error


def cut(namespace: Namespace) -> int:
    """GSO packets that were cut up there."""
    (link,) = json.loads(namespace.run("ip -j -s link show epic-seg0"))
    return int(link["stats64"]["tx"]["packets"])


@pytest.mark.parametrize("over", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_gso_packets_beyond_64_kb_arrive_in_pieces(network: Network, inner: int) -> None:
    client, server = tcp_pair(network, inner)
    with client, server:
        exchange(client, server)
    assert network.dropped() == {}
    for namespace in (network.epic, network.node):
        assert cut(namespace) > 0
