"""What a workload node sends: replies to inside addresses into the tunnel, all else as it was."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from host import (
    ENDPOINT,
    EPIC,
    ETHER,
    INSIDE,
    NODE,
    OLD_KEY,
    PASS,
    REDIRECT,
    TUNNEL,
    Host,
    gue,
    outer,
    workload_tunnel,
)
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.root

PROGRAM = "workload workload_underlay_egress"
REPLY = IP(src=str(ENDPOINT), dst=str(INSIDE))


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(REPLY / TCP(flags="SA"), id="tcp"),
        pytest.param(REPLY / UDP() / b"reply", id="udp"),
        pytest.param(REPLY / ICMP(), id="icmp"),
        pytest.param(IP(src=str(ENDPOINT), dst=str(INSIDE), frag=9, proto=6) / Raw(bytes(70)), id="fragment"),
    ],
)
def test_a_reply_is_encapsulated(host: Host, inner: Packet) -> None:
    ran = host.run(PROGRAM, ETHER / inner)
    assert ran.packet == bytes(outer(NODE, EPIC) / gue(inner) / inner)
    assert ran.verdict == REDIRECT
    assert host.state("workload").counters.tx_bytes == len(inner)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(IP(src=str(ENDPOINT), dst="198.51.100.1") / TCP(), id="elsewhere"),
        pytest.param(IP(src=str(NODE), dst=str(EPIC)) / UDP(sport=6080, dport=6080), id="the tunnel itself"),
        pytest.param(IP(src=str(INSIDE), dst=str(ENDPOINT)) / TCP(), id="from an inside address"),
        pytest.param(IPv6() / UDP(), id="IPv6"),
        pytest.param(ARP(), id="ARP"),
    ],
)
def test_other_traffic_is_left_alone(host: Host, packet: Packet) -> None:
    assert host.dropped(PROGRAM, ETHER / packet) is None
    assert host.run(PROGRAM, ETHER / packet) == (PASS, bytes(ETHER / packet))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(IP(src="192.168.50.12", dst=str(INSIDE)) / TCP(), "source_not_endpoint", id="stranger"),
        pytest.param(IP(src=str(ENDPOINT), dst=str(INSIDE), ihl=4) / TCP(), "inner_header", id="malformed"),
        pytest.param(REPLY / UDP() / Raw(bytes(1425)), "too_big", id="too big"),
    ],
)
def test_to_an_inside_address_nothing_leaves_in_the_clear(host: Host, packet: Packet, reason: str) -> None:
    assert host.dropped(PROGRAM, ETHER / packet) == reason


def test_an_endpoint_without_its_tunnel_is_dropped(host: Host) -> None:
    host.workload.set_endpoint(INSIDE, ENDPOINT, 99)
    assert host.dropped(PROGRAM, ETHER / REPLY / TCP()) == "tunnel_unknown"


def test_a_deleted_tunnel_leaves_its_inside_address_to_others(host: Host) -> None:
    host.workload.delete_tunnel(TUNNEL)
    host.workload.set_tunnel(workload_tunnel(id=TUNNEL + 1, inside=IPv4Address("100.64.0.9")))
    packet = ETHER / REPLY / TCP()
    assert host.run(PROGRAM, packet) == (PASS, bytes(packet))


def test_a_tunnel_that_took_over_an_inside_address_keeps_it(host: Host) -> None:
    host.workload.set_tunnel(workload_tunnel(id=TUNNEL + 1))
    host.workload.delete_tunnel(TUNNEL)
    assert host.workload.tunnel_ids() == {TUNNEL + 1}
    host.workload.set_endpoint(INSIDE, ENDPOINT, TUNNEL + 1)
    assert host.run(PROGRAM, ETHER / REPLY / TCP()).verdict == REDIRECT


def test_the_declared_address_and_key_may_change(host: Host) -> None:
    host.workload.set_tunnel(workload_tunnel(remote=IPv4Address("172.30.12.2"), remote_port=7000, active=0))
    inner = REPLY / UDP()
    expected = outer(NODE, IPv4Address("172.30.12.2"), 7000) / gue(inner, OLD_KEY) / inner
    assert host.run(PROGRAM, ETHER / inner).packet == bytes(expected)
