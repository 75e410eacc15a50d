"""What an instance sends: into the tunnel, to the router, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from host import (
    ENDPOINT,
    EPIC,
    ETHER,
    INSIDE,
    INSTANCE_INTERFACE,
    KEY,
    NAT,
    NAT_PORT,
    OLD_KEY,
    PASS,
    PUBLIC,
    REDIRECT,
    TUNNEL,
    Host,
    gateway_tunnel,
    gue,
    outer,
)
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.root

PROGRAM = "gateway instance_ingress"
REQUEST = IP(src=str(INSIDE), dst=str(ENDPOINT))
LARGEST = 1500 - 48


def sized(length: int) -> Packet:
    return REQUEST / UDP() / Raw(bytes(length - 28))


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(REQUEST / UDP(sport=1, dport=2) / b"datagram", id="udp"),
        pytest.param(REQUEST / TCP(flags="S"), id="tcp"),
        pytest.param(REQUEST / ICMP() / b"ping", id="icmp"),
        pytest.param(IP(bytes(REQUEST / Raw(bytes(64)))) / b"", id="no known protocol"),
        pytest.param(REQUEST.copy() / UDP() / Raw(bytes(8)), id="small"),
        pytest.param(
            IP(src=str(INSIDE), dst=str(ENDPOINT), frag=100, proto=17) / Raw(bytes(99)), id="fragment"
        ),
        pytest.param(
            IP(src=str(INSIDE), dst=str(ENDPOINT), options=[IPOption_NOP()] * 4) / UDP(), id="IPv4 options"
        ),
        pytest.param(sized(LARGEST), id="largest"),
    ],
)
def test_from_inside_to_an_endpoint_is_encapsulated(host: Host, inner: Packet) -> None:
    ran = host.run(PROGRAM, ETHER / inner)
    assert ran.packet == bytes(outer(EPIC, NAT, NAT_PORT) / gue(inner) / inner)
    assert ran.verdict == REDIRECT


def test_traffic_class_and_congestion_bits_are_copied(host: Host) -> None:
    inner = IP(src=str(INSIDE), dst=str(ENDPOINT), tos=0xBA) / UDP()
    assert host.run(PROGRAM, ETHER / inner).packet == bytes(
        outer(EPIC, NAT, NAT_PORT, tos=0xBA) / gue(inner) / inner
    )


def test_the_active_key_signs(host: Host) -> None:
    host.gateway.set_tunnel(gateway_tunnel(active=0))
    inner = REQUEST / UDP()
    assert host.run(PROGRAM, ETHER / inner).packet == bytes(
        outer(EPIC, NAT, NAT_PORT) / gue(inner, OLD_KEY) / inner
    )


def test_traffic_is_counted_by_inner_length(host: Host) -> None:
    for length in (100, 200):
        host.run(PROGRAM, ETHER / sized(length))
    counters = host.gateway.tunnel_counters()[TUNNEL]
    assert (counters.tx_packets, counters.tx_bytes, counters.rx_packets) == (2, 300, 0)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ETHER / ARP(psrc=str(INSIDE), pdst="169.254.0.1"), id="ARP"),
        pytest.param(ETHER / IP(src=str(PUBLIC), dst="198.51.100.1") / TCP(), id="public source"),
        pytest.param(ETHER / IP(src=str(PUBLIC), dst=str(ENDPOINT)) / TCP(), id="public source to endpoint"),
    ],
)
def test_what_is_not_for_the_tunnel_goes_to_the_stack_untouched(host: Host, packet: Packet) -> None:
    assert host.dropped(PROGRAM, packet) is None
    assert host.run(PROGRAM, packet) == (PASS, bytes(packet))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(IP(src="192.0.2.1", dst=str(ENDPOINT)) / UDP(), "instance_source", id="spoofed"),
        pytest.param(IP(src=str(ENDPOINT), dst=str(INSIDE)) / UDP(), "instance_source", id="reflected"),
        pytest.param(IPv6() / UDP(), "instance_protocol", id="IPv6"),
        pytest.param(Dot1Q(vlan=5) / REQUEST / UDP(), "instance_protocol", id="VLAN"),
        pytest.param(IP(src=str(INSIDE), dst="192.0.2.1") / UDP(), "endpoint_unknown", id="no endpoint"),
        pytest.param(IP(src=str(INSIDE), dst="169.254.0.1") / UDP(), "endpoint_unknown", id="the node"),
        pytest.param(IP(src=str(INSIDE), dst=str(ENDPOINT), ihl=4) / UDP(), "inner_header", id="short IHL"),
        pytest.param(IP(src=str(INSIDE), dst=str(ENDPOINT), version=6) / UDP(), "inner_header", id="version"),
        pytest.param(IP(src=str(INSIDE), dst=str(ENDPOINT), len=99) / UDP(), "inner_header", id="cut off"),
        pytest.param(IP(src=str(INSIDE), dst=str(ENDPOINT), len=19) / UDP(), "inner_header", id="length"),
        pytest.param(sized(LARGEST + 1), "too_big", id="too big"),
    ],
)
def test_everything_else_is_dropped_by_name(host: Host, packet: Packet, reason: str) -> None:
    assert host.dropped(PROGRAM, ETHER / packet) == reason


def _delete_tunnel(host: Host) -> None:
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel(id=TUNNEL + 1))
    host.gateway.set_tunnel(gateway_tunnel())


def _delete_endpoint(host: Host) -> None:
    host.gateway.delete_endpoint(INSIDE, ENDPOINT)


def _point_to_nothing(host: Host) -> None:
    host.gateway.set_endpoint(INSIDE, ENDPOINT, 99)


def _take_key(host: Host) -> None:
    host.invalidate_keys("gateway")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(_delete_tunnel, "tunnel_unresolved", id="far end not heard of"),
        pytest.param(_delete_endpoint, "endpoint_unknown", id="endpoint removed"),
        pytest.param(_point_to_nothing, "tunnel_unknown", id="tunnel removed"),
        pytest.param(_take_key, "key_missing", id="no key"),
    ],
)
def test_an_unresolved_tunnel_fails_closed(host: Host, change: Callable[[Host], None], reason: str) -> None:
    change(host)
    assert host.dropped(PROGRAM, ETHER / REQUEST / UDP()) == reason


def test_a_declared_far_end_serves_until_one_is_observed(host: Host) -> None:
    host.gateway.delete_tunnel(TUNNEL)
    declared = IPv4Address("172.30.3.11")
    host.gateway.set_tunnel(gateway_tunnel(remote=declared))
    inner = REQUEST / UDP()
    assert host.run(PROGRAM, ETHER / inner).packet == bytes(outer(EPIC, declared) / gue(inner, KEY) / inner)


def test_an_interface_that_is_no_instances_is_closed(host: Host) -> None:
    loopback = 1
    assert host.dropped(PROGRAM, ETHER / REQUEST / UDP(), loopback) == "instance_unknown"
    host.gateway.detach_instance(INSTANCE_INTERFACE)
    assert (
        host.dropped(PROGRAM, ETHER / IP(src=str(PUBLIC), dst="198.51.100.1") / UDP()) == "instance_unknown"
    )
