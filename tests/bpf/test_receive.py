"""Data packets from the underlay, at both ends: what is accepted, and each way to be dropped."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from gue_scapy import GUE
from host import (
    ENDPOINT,
    EPIC,
    ETHER,
    INSIDE,
    INSTANCE_INTERFACE,
    NAT,
    NODE,
    OLD_KEY,
    PASS,
    REDIRECT,
    TUNNEL,
    Host,
    gateway_tunnel,
    gue,
    outer,
    workload_tunnel,
)
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.root

GATEWAY, WORKLOAD = "gateway gateway_underlay_ingress", "workload workload_underlay_ingress"
REPLY = IP(src=str(ENDPOINT), dst=str(INSIDE)) / TCP(flags="SA") / b"reply"
REQUEST = IP(src=str(INSIDE), dst=str(ENDPOINT)) / TCP(flags="S") / b"request"
NOT_FIRST_KEY = bytes(16)
ENDS = pytest.mark.parametrize("end", [GATEWAY, WORKLOAD], ids=["gateway", "workload"])


def inner_of(end: str) -> Packet:
    return REPLY if end == GATEWAY else REQUEST


def frame_of(end: str, inner: Packet | None = None, **changes: object) -> Packet:
    """A good frame for that end, with changes to the GUE header after signing."""
    inner = inner or inner_of(end)
    frame = outer(NAT, EPIC) if end == GATEWAY else outer(EPIC, NODE)
    return frame / gue(inner, **changes) / inner


@ENDS
def test_a_good_packet_is_unwrapped(host: Host, end: str) -> None:
    ran = host.run(end, frame_of(end))
    assert ran.packet == bytes(ETHER / inner_of(end))
    assert ran.verdict == (REDIRECT if end == GATEWAY else PASS)
    counters = host.state(end.split(maxsplit=1)[0]).counters
    assert (counters.rx_packets, counters.rx_bytes) == (1, len(inner_of(end)))


@ENDS
def test_both_keys_verify_until_one_is_taken_away(host: Host, end: str) -> None:
    frame = frame_of(end, key=OLD_KEY)
    assert host.dropped(end, frame) is None
    keep_new = {"keys": (None, gateway_tunnel().keys[1])}
    host.gateway.set_tunnel(gateway_tunnel(**keep_new))
    host.workload.set_tunnel(workload_tunnel(**keep_new))
    assert host.dropped(end, frame) == "tag_wrong"


@ENDS
def test_the_outer_source_is_not_checked_for_a_nat_may_change_it(host: Host, end: str) -> None:
    frame = frame_of(end)
    frame[IP].src, frame[UDP].sport = "198.51.100.77", 1234
    assert host.run(end, frame).packet == bytes(ETHER / inner_of(end))


@ENDS
def test_padding_of_the_frame_is_no_part_of_the_packet(host: Host, end: str) -> None:
    assert host.run(end, bytes(frame_of(end)) + bytes(9)).packet == bytes(ETHER / inner_of(end)) + bytes(9)


@ENDS
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"tag": bytes(8)}, "tag_wrong", id="no tag"),
        pytest.param({"key": NOT_FIRST_KEY}, "tag_wrong", id="unknown key"),
        pytest.param({"tunnel": 8}, "tunnel_unknown", id="tunnel"),
        pytest.param({"service": 4}, "service_wrong", id="service"),
        pytest.param({"version": 1}, "gue_version", id="version 1"),
        pytest.param({"version": 3}, "gue_version", id="version 3"),
        pytest.param({"hlen": 3}, "gue_header_length", id="shorter header"),
        pytest.param({"hlen": 5}, "gue_header_length", id="longer header"),
        pytest.param({"flags": 1}, "gue_flags", id="flags"),
        pytest.param({"flags": 0x8000}, "gue_flags", id="first flag"),
        pytest.param({"proto": 41}, "gue_protocol", id="IPv6 inside"),
        pytest.param({"proto": 59}, "gue_protocol", id="nothing inside"),
    ],
)
def test_a_wrong_tunnel_header_is_dropped_by_name(
    host: Host, end: str, changes: dict[str, object], reason: str
) -> None:
    assert host.dropped(end, frame_of(end, **changes)) == reason


@ENDS
def test_the_tag_binds_the_inner_addresses_and_the_protocol(host: Host, end: str) -> None:
    for field, value in (("src", "192.168.50.12"), ("dst", "192.168.50.12"), ("proto", 17)):
        inner = inner_of(end).copy()
        header = gue(inner)
        setattr(inner, field, value)
        del inner.chksum
        frame = frame_of(end)
        frame[GUE].remove_payload()
        frame[GUE].tag = header.tag
        assert host.dropped(end, frame / inner) == "tag_wrong", field


@ENDS
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"version": 6}, "inner_header", id="version"),
        pytest.param({"ihl": 4}, "inner_header", id="short IHL"),
        pytest.param({"ihl": 15}, "inner_header", id="options beyond the end"),
        pytest.param({"len": 10}, "inner_header", id="shorter than its header"),
        pytest.param({"len": 100}, "inner_length", id="longer than the outer packet"),
        pytest.param({"len": 40}, "inner_length", id="shorter than the outer packet"),
    ],
)
def test_a_malformed_inner_header_is_dropped_by_name(
    host: Host, end: str, fields: dict[str, int], reason: str
) -> None:
    inner = IP(bytes(inner_of(end)))
    for name, value in fields.items():
        setattr(inner, name, value)
    frame = frame_of(end)
    frame[GUE].remove_payload()
    assert host.dropped(end, frame / Raw(bytes(inner))) == reason


@pytest.mark.parametrize(
    ("end", "source", "destination", "reason"),
    [
        pytest.param(GATEWAY, ENDPOINT, "100.64.0.2", "inner_spoofed", id="to another instance"),
        pytest.param(GATEWAY, ENDPOINT, "10.99.0.1", "inner_spoofed", id="to anywhere"),
        pytest.param(GATEWAY, "192.168.50.12", INSIDE, "endpoint_unknown", id="from no endpoint"),
        pytest.param(GATEWAY, INSIDE, ENDPOINT, "inner_spoofed", id="turned back"),
        pytest.param(WORKLOAD, "100.64.0.2", ENDPOINT, "inner_spoofed", id="from another instance"),
        pytest.param(WORKLOAD, INSIDE, "192.168.50.12", "endpoint_unknown", id="to no endpoint"),
        pytest.param(WORKLOAD, ENDPOINT, INSIDE, "inner_spoofed", id="turned back to the node"),
    ],
)
def test_an_authentic_packet_may_only_speak_for_its_tunnel(
    host: Host, end: str, source: str, destination: str, reason: str
) -> None:
    inner = IP(src=str(source), dst=str(destination)) / UDP() / b"payload of a spoofer"
    assert host.dropped(end, frame_of(end, inner)) == reason


@ENDS
def test_an_endpoint_of_another_tunnel_is_not_served_by_this_one(host: Host, end: str) -> None:
    host.gateway.set_endpoint(INSIDE, ENDPOINT, TUNNEL + 1)
    host.workload.set_endpoint(INSIDE, ENDPOINT, TUNNEL + 1)
    assert host.dropped(end, frame_of(end)) == "endpoint_unknown"


@ENDS
def test_a_packet_cut_anywhere_is_dropped(host: Host, end: str) -> None:
    good = bytes(frame_of(end))
    ports_end = 14 + 20 + 8
    for length in range(ports_end, len(good)):
        expected = "truncated" if length < ports_end + 40 else "outer_length"
        assert host.dropped(end, good[:length]) == expected, length


@ENDS
@pytest.mark.parametrize(
    ("header", "fields", "reason"),
    [
        pytest.param(UDP, {"len": 20}, "outer_length", id="UDP length"),
        pytest.param(IP, {"len": 67}, "outer_length", id="IPv4 length below all headers"),
        pytest.param(IP, {"len": 2000}, "outer_length", id="IPv4 length above the frame"),
        pytest.param(IP, {"flags": "MF"}, "outer_fragment", id="first fragment"),
        pytest.param(IP, {"options": [IPOption_NOP()] * 4}, "outer_options", id="options"),
    ],
)
def test_a_wrong_outer_header_is_dropped_by_name(
    host: Host, end: str, header: type[Packet], fields: dict[str, object], reason: str
) -> None:
    frame = frame_of(end)
    for name, value in fields.items():
        setattr(frame[header], name, value)
    assert host.dropped(end, frame) == reason


@ENDS
def test_each_tunnel_is_taken_at_its_own_address_only(host: Host, end: str) -> None:
    frame = frame_of(end)
    frame[IP].dst = str(NODE if end == GATEWAY else EPIC)
    assert host.dropped(end, frame) == "tunnel_address"


OTHERS = {
    "another port": outer(NAT, EPIC, 6081) / Raw(bytes(60)),
    "TCP": ETHER / IP(dst=str(EPIC)) / TCP(dport=6080),
    "IPv6": ETHER / IPv6() / UDP(dport=6080) / Raw(bytes(60)),
    "VLAN": ETHER / Dot1Q(vlan=5) / IP(dst=str(EPIC)) / UDP(dport=6080) / Raw(bytes(60)),
    "later fragment": outer(NAT, EPIC, frag=10) / Raw(bytes(60)),
    "another port after options": ETHER
    / IP(dst=str(EPIC), options=[IPOption_NOP()] * 4)
    / UDP(dport=6081)
    / Raw(bytes(60)),
    "somebody else's address": outer(NAT, IPv4Address("203.0.113.1")) / gue(REPLY) / REPLY,
    "half a UDP header": bytes(ETHER / IP(dst=str(EPIC)) / UDP(dport=6080))[:38],
}


@ENDS
@pytest.mark.parametrize("packet", OTHERS.values(), ids=OTHERS)
def test_what_is_not_ours_is_left_alone(host: Host, end: str, packet: Packet | bytes) -> None:
    assert host.dropped(end, packet) is None
    assert host.run(end, packet) == (PASS, bytes(packet))


@ENDS
def test_congestion_marked_by_the_underlay_is_carried_inside(host: Host, end: str) -> None:
    for inside, expected in ((1, 3), (2, 3), (3, 3)):
        inner = inner_of(end).copy()
        inner.tos = 0xB8 | inside
        frame = frame_of(end, inner)
        frame[IP].tos = 3
        marked = inner.copy()
        marked.tos = 0xB8 | expected
        assert host.run(end, frame).packet == bytes(ETHER / marked)
    frame = frame_of(end)
    frame[IP].tos = 3
    assert host.dropped(end, frame) == "congestion"


def test_without_its_instance_a_packet_is_dropped(host: Host) -> None:
    host.gateway.detach_instance(INSTANCE_INTERFACE)
    assert host.run(GATEWAY, frame_of(GATEWAY)).verdict == 2
