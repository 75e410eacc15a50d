# SPDX-License-Identifier: Apache-2.0
"""What an instance sends: into the tunnel, to the router, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from frames import (
    ALL,
    ETHER,
    FAMILIES,
    INSIDE,
    INSIDE6,
    INSTANCE_INTERFACE,
    KEY,
    OLD_KEY,
    OTHER_INTERFACE,
    OTHER_TUNNEL,
    PUBLIC,
    PUBLIC6,
    TUNNEL,
    Address,
    Families,
    hello,
    ip,
    wrapped,
)
from host import GATEWAY, INSTANCE, Host, gateway_tunnel
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Raw
from testrun import PASS, REDIRECT, SHOT

from epic.bpf.dataplane import Endpoint, Route, Tunnel

pytestmark = pytest.mark.root

OVER = pytest.mark.parametrize("families", [ALL[0], ALL[2]], ids=["IPv4", "IPv6"])
ANY_INNER = pytest.mark.parametrize("families", ALL[:2], ids=["IPv4 inside", "IPv6 inside"])


def sized(families: Families, length: int) -> Packet:
    return families.request() / UDP() / Raw(bytes(length - families.header - 8))


REQUESTS: dict[str, Callable[[Families], Packet]] = {
    "udp": lambda f: f.request() / UDP(sport=1, dport=2) / b"datagram",
    "tcp": lambda f: f.request() / TCP(flags="S"),
    "echo": lambda f: f.request() / (ICMP() if f.inner == 4 else ICMPv6EchoRequest()) / b"ping",
    "no known protocol": lambda f: (
        f.request(**({"proto": 200} if f.inner == 4 else {"nh": 200})) / Raw(bytes(64))
    ),
    "nothing behind the header": lambda f: f.request(**({"proto": 200} if f.inner == 4 else {"nh": 59})),
    "later fragment": lambda f: (
        f.request(frag=100, proto=17) / Raw(bytes(99))
        if f.inner == 4
        else f.request() / IPv6ExtHdrFragment(offset=100, nh=17) / Raw(bytes(99))
    ),
    "options": lambda f: (
        f.request(options=[IPOption_NOP()] * 4) / UDP()
        if f.inner == 4
        else f.request() / IPv6ExtHdrDestOpt() / UDP()
    ),
    "largest": lambda f: sized(f, f.largest),
}


@FAMILIES
@pytest.mark.parametrize("kind", REQUESTS)
def test_from_inside_to_an_endpoint_is_encapsulated(host: Host, families: Families, kind: str) -> None:
    inner = REQUESTS[kind](families)
    ran = host.run(INSTANCE, ETHER / inner)
    assert ran.packet == bytes(wrapped(families, inner))
    assert ran.verdict == REDIRECT


@FAMILIES
def test_padding_of_the_frame_stays_outside(host: Host, families: Families) -> None:
    inner = families.request() / UDP() / b"x"
    ran = host.run(INSTANCE, bytes(ETHER / inner) + bytes(11))
    assert ran.packet == bytes(wrapped(families, inner)) + bytes(11)


@FAMILIES
def test_traffic_class_and_congestion_bits_are_copied(host: Host, families: Families) -> None:
    for bits in (0xBA, 0x01, 0xFF):
        inner = families.request(**{"tos" if families.inner == 4 else "tc": bits}) / UDP()
        assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(families, inner, tc=bits))


@pytest.mark.parametrize("families", [ALL[1], ALL[3]], ids=str)
def test_the_flow_label_stays_inside(host: Host, families: Families) -> None:
    inner = families.request(fl=0xABCDE) / UDP()
    assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(families, inner))


@FAMILIES
def test_the_active_key_signs(host: Host, families: Families) -> None:
    host.gateway.set_tunnel(gateway_tunnel(active=0))
    inner = families.request() / UDP()
    assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(families, inner, key=OLD_KEY))


@FAMILIES
def test_during_a_rotation_either_slot_may_sign(host: Host, families: Families) -> None:
    inner = families.request() / UDP()
    for keys, active, key in (((None, KEY), 1, KEY), ((OLD_KEY, KEY), 0, OLD_KEY), ((KEY, None), 0, KEY)):
        host.gateway.set_tunnel(gateway_tunnel(keys=keys, active=active))
        assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(families, inner, key=key))


@FAMILIES
def test_replies_go_from_the_address_that_hellos_come_to(host: Host, families: Families) -> None:
    packet = hello(families, 50)
    packet[1].dst = str(families.epic_second)
    host.run(GATEWAY, packet)
    inner = families.request() / UDP()
    frame = wrapped(families, inner)
    frame[1].src = str(families.epic_second)
    assert host.run(INSTANCE, ETHER / inner).packet == bytes(frame)


@FAMILIES
def test_the_far_end_may_change_family(host: Host, families: Families) -> None:
    for over in (6, 4):
        now = Families(over, families.inner)
        host.run(GATEWAY, hello(now, 60 - over))
        inner = families.request() / UDP()
        assert host.run(INSTANCE, ETHER / inner).packet == bytes(wrapped(now, inner))


@FAMILIES
def test_a_route_that_is_given_changes_nothing_in_the_packet(host: Host, families: Families) -> None:
    for route in (
        Route(families.nat, "up0", None),
        Route(families.nat, "up0", families.epic_second),
        Route(families.stranger, "up0", None),
    ):
        host.gateway.set_tunnel(gateway_tunnel(route=route))
        inner = families.request() / UDP()
        assert host.run(INSTANCE, ETHER / inner) == (REDIRECT, bytes(wrapped(families, inner)))


@FAMILIES
def test_traffic_is_counted_by_inner_length(host: Host, families: Families) -> None:
    for length in (100, 200):
        host.run(INSTANCE, ETHER / sized(families, length))
    counters = host.gateway.tunnel_counters()[TUNNEL]
    assert (counters.tx_packets, counters.tx_bytes, counters.rx_packets) == (2, 300, 0)


DISCOVERY = {
    "router solicitation": IPv6(src="fe80::1", dst="ff02::2") / ICMPv6ND_RS(),
    "solicitation": IPv6(src="fe80::1", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="fe80::2"),
    "duplicate address detection": IPv6(src="::", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="fe80::1"),
    "solicitation from inside": ALL[1].request(dst="fe80::2") / ICMPv6ND_NS(tgt="fe80::2"),
    "advertisement": IPv6(src="fe80::1", dst="fe80::2") / ICMPv6ND_NA(tgt="fe80::1"),
    "advertisement to all": IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NA(tgt="fe80::1"),
}


@pytest.mark.parametrize("packet", DISCOVERY.values(), ids=DISCOVERY)
def test_neighbour_discovery_goes_to_the_stack_untouched(host: Host, packet: Packet) -> None:
    assert host.dropped(INSTANCE, ETHER / packet) is None
    assert host.run(INSTANCE, ETHER / packet) == (PASS, bytes(ETHER / packet))


STRAY = {
    "hop limit": IPv6(src="fe80::1", dst="fe80::2", hlim=254) / ICMPv6ND_NA(tgt="fe80::1"),
    "beyond the link": ALL[1].request(dst="2001:db8::1", hlim=255) / ICMPv6ND_NS(tgt="fe80::2"),
    "stranger beyond the link": IPv6(src="2001:db8::2", dst="2001:db8::1") / ICMPv6ND_NA(tgt="fe80::2"),
    "router advertisement": IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA(),
    "redirect": IPv6(src="fe80::1", dst="fe80::2") / ICMPv6ND_Redirect(),
    "echo": IPv6(src="fe80::1", dst="fe80::2", hlim=255) / ICMPv6EchoRequest(),
    "no type": IPv6(src="fe80::1", dst="fe80::2", hlim=255, nh=58),
    "another protocol": IPv6(src="fe80::1", dst="fe80::2", hlim=255) / UDP(sport=0x8700, dport=1),
}


@pytest.mark.parametrize("packet", STRAY.values(), ids=STRAY)
def test_what_only_looks_like_neighbour_discovery_goes_nowhere(host: Host, packet: Packet) -> None:
    assert host.dropped(INSTANCE, ETHER / packet) is not None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ETHER / ARP(psrc="100.64.0.1", pdst="169.254.0.1"), id="ARP"),
        pytest.param(ETHER / ip(PUBLIC, "198.51.100.1") / TCP(), id="public source"),
        pytest.param(ETHER / ip(PUBLIC, ALL[0].endpoint) / TCP(), id="public source to endpoint"),
        pytest.param(ETHER / ip(PUBLIC6, "2001:db8:198::1") / TCP(), id="public IPv6 source"),
        pytest.param(ETHER / ip(PUBLIC6, ALL[1].endpoint) / TCP(), id="public IPv6 source to endpoint"),
    ],
)
def test_what_is_not_for_the_tunnel_goes_to_the_stack_untouched(host: Host, packet: Packet) -> None:
    assert host.dropped(INSTANCE, packet) is None
    assert host.run(INSTANCE, packet) == (PASS, bytes(packet))


@pytest.mark.parametrize(
    ("publics", "sources"),
    [
        pytest.param((PUBLIC,), ("::", str(PUBLIC6)), id="IPv4 only"),
        pytest.param((PUBLIC6,), (str(IPv4Address(0)), str(PUBLIC)), id="IPv6 only"),
    ],
)
def test_of_a_family_without_a_public_address_nothing_goes_to_the_stack(
    host: Host, publics: tuple[Address, ...], sources: tuple[str, ...]
) -> None:
    with host.namespace:
        host.gateway.attach_instance(INSTANCE_INTERFACE, INSIDE, INSIDE6, publics)
    for source in sources:
        packet = ETHER / ip(source, "2001:db8:198::1" if ":" in source else "198.51.100.1") / TCP()
        assert host.dropped(INSTANCE, packet) == "instance_source"


@FAMILIES
def test_everything_else_is_dropped_by_name(host: Host, families: Families) -> None:
    f = families
    cases: dict[str, tuple[Any, str]] = {
        "spoofed": (ip(f.foreign, f.endpoint) / UDP(), "instance_source"),
        "reflected": (ip(f.endpoint, f.inside) / UDP(), "instance_source"),
        "VLAN": (Dot1Q(vlan=5) / f.request() / UDP(), "instance_protocol"),
        "no endpoint": (ip(f.inside, f.foreign) / UDP(), "endpoint_unknown"),
        "version": (f.request(version=10 - f.inner) / UDP(), "inner_header"),
        "version 0": (f.request(version=0) / UDP(), "inner_header"),
        "cut off": (
            f.request(**({"len": 99} if f.inner == 4 else {"plen": 99})) / UDP() / Raw(bytes(20)),
            "inner_header",
        ),
    }
    for name, (packet, reason) in cases.items():
        assert host.dropped(INSTANCE, ETHER / packet) == reason, name


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(ALL[0].request(ihl=4) / UDP(), "inner_header", id="short IHL"),
        pytest.param(ALL[0].request(len=19) / UDP(), "inner_header", id="length"),
        pytest.param(ALL[0].request(ihl=15) / UDP(), "inner_header", id="options beyond the end"),
        pytest.param(ip(ALL[0].inside, "169.254.0.1") / UDP(), "endpoint_unknown", id="the node"),
        pytest.param(ip(PUBLIC, ALL[0].endpoint, version=5) / UDP(), "inner_header", id="public, broken"),
    ],
)
def test_broken_ipv4_is_dropped_by_name(host: Host, packet: Packet, reason: str) -> None:
    assert host.dropped(INSTANCE, ETHER / packet) == reason


def test_other_protocols_than_ip_and_arp_are_dropped(host: Host) -> None:
    for ethertype in (0x8864, 0x88CC, 0x8100, 0x88A8, 0x8847, 0x0600):
        frame = bytes(ETHER)[:12] + ethertype.to_bytes(2, "big") + bytes(60)
        assert host.dropped(INSTANCE, frame) == "instance_protocol", hex(ethertype)


def renew_tunnel(host: Host, tunnel: Tunnel) -> None:
    """With its endpoints, which keep to the tunnel that they were set for."""
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(tunnel)
    for each in ALL[:2]:
        host.gateway.set_endpoint(each.inside, each.endpoint, Endpoint(TUNNEL))


def _forget_far_end(host: Host) -> None:
    renew_tunnel(host, gateway_tunnel())


def _delete_endpoint(host: Host) -> None:
    for each in ALL[:2]:
        host.gateway.delete_endpoint(each.inside, each.endpoint)


def _point_to_nothing(host: Host) -> None:
    host.add_other_tunnel()
    for each in ALL[:2]:
        host.gateway.set_endpoint(each.inside, each.endpoint, Endpoint(OTHER_TUNNEL))
    host.forget_other_tunnel()


def _take_key(host: Host) -> None:
    host.invalidate_keys("gateway")


@ANY_INNER
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(_forget_far_end, "tunnel_unresolved", id="far end not heard of"),
        pytest.param(_delete_endpoint, "endpoint_unknown", id="endpoint removed"),
        pytest.param(_point_to_nothing, "tunnel_unknown", id="tunnel removed"),
        pytest.param(_take_key, "key_missing", id="no key"),
    ],
)
def test_an_unresolved_tunnel_fails_closed(
    host: Host, families: Families, change: Callable[[Host], None], reason: str
) -> None:
    change(host)
    assert host.dropped(INSTANCE, ETHER / families.request() / UDP()) == reason


@FAMILIES
def test_a_declared_far_end_is_not_sent_to_before_it_was_heard(host: Host, families: Families) -> None:
    renew_tunnel(host, gateway_tunnel(remote=families.nat))
    assert host.dropped(INSTANCE, ETHER / families.request() / UDP()) == "tunnel_unresolved"


@ANY_INNER
def test_an_interface_that_is_no_instances_is_closed(host: Host, families: Families) -> None:
    loopback = 1
    packet = ETHER / families.request() / UDP()
    assert host.dropped(INSTANCE, packet, loopback) == "instance_source"
    stray = ETHER / ip(families.foreign, families.endpoint) / UDP()
    assert host.dropped(INSTANCE, stray, loopback) == "instance_unknown"
    host.gateway.detach_instance(INSTANCE_INTERFACE)
    assert host.dropped(INSTANCE, ETHER / IP(src=str(PUBLIC)) / UDP()) == "instance_unknown"


@ANY_INNER
def test_an_instance_cannot_use_the_tunnel_of_another(host: Host, families: Families) -> None:
    host.gateway.set_tunnel(gateway_tunnel(interface=OTHER_INTERFACE))
    assert host.dropped(INSTANCE, ETHER / families.request() / UDP()) == "instance_source"


@OVER
def test_several_instances_keep_apart(host: Host, families: Families) -> None:
    packet = ETHER / families.request() / UDP()
    assert host.run(INSTANCE, packet).verdict == REDIRECT
    assert host.run(INSTANCE, packet, host.pod).verdict == SHOT
