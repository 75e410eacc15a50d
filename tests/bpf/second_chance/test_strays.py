# SPDX-License-Identifier: Apache-2.0
"""What no instance has a socket for is answered as by a gateway of one instance; fragments are left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from backend import DOWNLOADS
from bed import CLIENT, CLIENT6, PUBLIC, PUBLIC6, Bed
from client import ask, connect
from namespaces import eventually
from path_network import Address
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from serving import PUBLIC_HTTP
from steering import ALL, EACH_TO_THE_NEXT, SYN, Site

pytestmark = pytest.mark.root
COUNT = 20
FRAGMENT_MTU = 600
CLOSED_PORT = 9


def send_strays(bed: Bed, public: Address, flags: str, port: int = PUBLIC_HTTP) -> None:
    """COUNT segments, each from a port that the client has no connection from."""
    client = CLIENT if public.version == 4 else CLIENT6
    with bed.client:
        family = socket.AF_INET if public.version == 4 else socket.AF_INET6
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        for index in range(COUNT):
            header = IP if public.version == 4 else IPv6
            segment = TCP(sport=1000 + index, dport=port, flags=flags, seq=index, ack=index << 20)
            raw.sendto(bytes(header(src=str(client), dst=str(public)) / segment), (str(public), 0))


@pytest.mark.parametrize("public", [PUBLIC, PUBLIC6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("flags", ["A", "FA", "SA"])
def test_a_stray_segment_is_reset_once(site: Site, public: Address, flags: str) -> None:
    site.steering.to((ALL, EACH_TO_THE_NEXT))
    before = site.steering.resets
    send_strays(site.bed, public, flags)
    assert eventually(lambda: site.steering.resets - before >= COUNT)
    assert site.steering.resets - before == COUNT


def test_a_stray_reset_is_met_by_silence(site: Site) -> None:
    site.steering.to((ALL, EACH_TO_THE_NEXT))
    before = site.steering.resets
    send_strays(site.bed, PUBLIC, "R")
    # One that is answered, behind them.
    send_strays(site.bed, PUBLIC, "S", CLOSED_PORT)
    assert eventually(lambda: site.steering.resets - before >= COUNT)
    assert site.steering.resets - before == COUNT


@pytest.fixture
def fragmenting(site: Site) -> Iterator[Site]:
    """A client that lets routers cut its packets up, and one that does."""
    bed = site.bed
    bed.client.sysctl("ipv4/ip_no_pmtu_disc", 1)
    bed.edge.run(f"ip route add {PUBLIC} via 10.11.0.1 mtu lock {FRAGMENT_MTU}")
    yield site
    bed.edge.run(f"ip route del {PUBLIC}")
    bed.client.sysctl("ipv4/ip_no_pmtu_disc", 0)


def test_fragments_are_taken_by_the_owner(fragmenting: Site) -> None:
    fragmenting.steering.to((ALL, 0))
    with connect(fragmenting.bed, PUBLIC) as opened:
        ask(opened, 10_000)
    assert fragmenting.bed.counted("fragments") > 0


def test_fragments_that_come_to_another_node_are_left_to_it_and_counted(fragmenting: Site) -> None:
    fragmenting.steering.to((SYN, 0), (ALL, 1))
    before = fragmenting.bed.counted("fragments")
    with connect(fragmenting.bed, PUBLIC, DOWNLOADS) as opened:
        opened.sendall(b"1".rjust(1000))
        with pytest.raises(ConnectionResetError):
            opened.recv(1)
    assert fragmenting.bed.counted("fragments") > before
