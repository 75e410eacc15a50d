# SPDX-License-Identifier: Apache-2.0
"""Data packets from the underlay, at both ends: what is accepted, and each way to be dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from frames import (
    ALL,
    FAMILIES,
    INSTANCE_INTERFACE,
    KEY,
    OLD_KEY,
    OPENED,
    OTHER_TUNNEL,
    POD_INTERFACE,
    TUNNEL,
    WRONG_KEY,
    Families,
    gue,
    ip,
    recomputed,
    set_traffic_class,
    tag,
)
from gue_scapy import GUE
from host import GATEWAY, WORKLOAD, Host, gateway_tunnel, workload_tunnel
from receiving import ENDS, OVER, frame_of, inner_of, outer_of, unwrapped
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw
from testrun import PASS, REDIRECT

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

SIX_INSIDE = pytest.mark.parametrize("families", [ALL[1], ALL[3]], ids=str)


@ENDS
@OPENED
def test_a_good_packet_is_unwrapped(host: Host, end: str, families: Families) -> None:
    inner = inner_of(end, families)
    ran = host.run(end, frame_of(end, families))
    assert ran.packet == unwrapped(inner) == recomputed(ran.packet)
    assert ran.verdict == (REDIRECT if end == GATEWAY else PASS)
    counters = host.state(end.split(maxsplit=1)[0]).counters
    assert (counters.rx_packets, counters.rx_bytes) == (1, len(inner))


INNERS: dict[str, Callable[[Any], Packet]] = {
    "udp": lambda header: header() / UDP() / b"datagram",
    "empty": lambda header: header(**({"nh": 59} if header().version == 6 else {"proto": 59})),
    "large": lambda header: header() / UDP() / Raw(bytes(1300)),
    "no known protocol": lambda header: (
        header(**({"nh": 200} if header().version == 6 else {"proto": 200})) / Raw(b"x" * 7)
    ),
    "later fragment": lambda header: (
        header() / IPv6ExtHdrFragment(offset=100, nh=17) / Raw(bytes(33))
        if header().version == 6
        else header(frag=100, proto=17) / Raw(bytes(33))
    ),
    "options": lambda header: (
        header() / IPv6ExtHdrDestOpt() / UDP()
        if header().version == 6
        else header(options=[IPOption_NOP()] * 4) / UDP()
    ),
}


@ENDS
@OPENED
@pytest.mark.parametrize("kind", INNERS)
def test_what_is_inside_does_not_matter(host: Host, end: str, families: Families, kind: str) -> None:
    inner = INNERS[kind](families.reply if end == GATEWAY else families.request)
    assert host.run(end, frame_of(end, families, inner)).packet == unwrapped(inner)


@ENDS
@OPENED
def test_both_keys_verify_until_one_is_taken_away(host: Host, end: str, families: Families) -> None:
    frame = frame_of(end, families, key=OLD_KEY)
    assert host.dropped(end, frame) is None
    host.gateway.set_tunnel(gateway_tunnel(keys=(None, KEY)))
    host.workload.set_tunnel(workload_tunnel(families.over, keys=(None, KEY)))
    assert host.dropped(end, frame) == "tag_wrong"


@ENDS
@OPENED
def test_padding_of_the_frame_is_no_part_of_the_packet(host: Host, end: str, families: Families) -> None:
    ran = host.run(end, bytes(frame_of(end, families)) + bytes(9))
    assert ran.packet == unwrapped(inner_of(end, families)) + bytes(9)


@ENDS
@OVER
@pytest.mark.parametrize("port", range(6079, 6086))
def test_each_end_listens_on_its_ports(host: Host, end: str, families: Families, port: int) -> None:
    ours = range(6080, 6081) if end == GATEWAY else range(6080, 6084)
    frame = frame_of(end, families)
    frame[UDP].dport = port
    taken = host.run(end, frame).packet == unwrapped(inner_of(end, families))
    assert taken == (port in ours)
    assert taken or host.run(end, frame) == (PASS, bytes(frame))


@ENDS
@FAMILIES
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"tag": bytes(8)}, "tag_wrong", id="no tag"),
        pytest.param({"key": WRONG_KEY}, "tag_wrong", id="unknown key"),
        pytest.param({"tunnel": 99}, "tunnel_unknown", id="tunnel"),
        pytest.param({"service": 4}, "service_wrong", id="service"),
        pytest.param({"version": 1}, "gue_version", id="version 1"),
        pytest.param({"version": 3}, "gue_version", id="version 3"),
        pytest.param({"hlen": 2}, "gue_header_length", id="shorter header"),
        pytest.param({"hlen": 5}, "gue_header_length", id="longer header"),
        pytest.param({"flags": 1}, "gue_flags", id="flags"),
        pytest.param({"flags": 0x8000}, "gue_flags", id="first flag"),
        pytest.param({"proto": 59}, "gue_protocol", id="nothing inside"),
        pytest.param({"proto": 17}, "gue_protocol", id="UDP inside"),
    ],
)
def test_a_wrong_tunnel_header_is_dropped_by_name(
    host: Host, end: str, families: Families, changes: dict[str, object], reason: str
) -> None:
    assert host.dropped(end, frame_of(end, families, **changes)) == reason


@ENDS
@FAMILIES
def test_the_family_that_the_header_says_must_be_inside(host: Host, end: str, families: Families) -> None:
    other = 41 if families.inner == 4 else 4
    inner = inner_of(end, families) / Raw(bytes(40))
    assert host.dropped(end, frame_of(end, families, inner, proto=other)) == "inner_header"


@ENDS
@FAMILIES
def test_the_tag_binds_the_inner_addresses_and_the_protocol(host: Host, end: str, families: Families) -> None:
    protocol = "proto" if families.inner == 4 else "nh"
    for field, value in (("src", str(families.foreign)), ("dst", str(families.foreign)), (protocol, 17)):
        inner = inner_of(end, families)
        header = gue(inner)
        setattr(inner, field, value)
        assert host.dropped(end, outer_of(end, families) / header / inner) == "tag_wrong", field


@ENDS
@FAMILIES
def test_a_tag_of_the_other_familys_message_is_none(host: Host, end: str, families: Families) -> None:
    inner = inner_of(end, families)
    lookalike = (IPv6 if families.inner == 4 else IP)() / TCP()
    wrong = tag(KEY, TUNNEL, 3, bytes(lookalike))
    assert host.dropped(end, frame_of(end, families, inner, tag=wrong)) == "tag_wrong"


BAD_INNER: dict[int, list[Any]] = {
    4: [
        pytest.param({"version": 6}, "inner_header", id="version"),
        pytest.param({"ihl": 4}, "inner_header", id="short IHL"),
        pytest.param({"ihl": 15}, "inner_header", id="options beyond the end"),
        pytest.param({"len": 10}, "inner_header", id="shorter than its header"),
        pytest.param({"len": 100}, "inner_length", id="longer than the outer packet"),
        pytest.param({"len": 40}, "inner_length", id="shorter than the outer packet"),
    ],
    6: [
        pytest.param({"version": 4}, "inner_header", id="version"),
        pytest.param({"plen": 100}, "inner_length", id="longer than the outer packet"),
        pytest.param({"plen": 0}, "inner_length", id="jumbo"),
        pytest.param({"plen": 20}, "inner_length", id="shorter than the outer packet"),
    ],
}


def bad_inner(host: Host, end: str, families: Families, fields: dict[str, int]) -> str | None:
    inner = inner_of(end, families)
    header = gue(inner)
    for name, value in fields.items():
        setattr(inner, name, value)
    return host.dropped(end, outer_of(end, families) / header / Raw(bytes(inner)))


@ENDS
@pytest.mark.parametrize("families", [ALL[0], ALL[2]], ids=str)
@pytest.mark.parametrize(("fields", "reason"), BAD_INNER[4])
def test_a_malformed_inner_ipv4_header_is_dropped_by_name(
    host: Host, end: str, families: Families, fields: dict[str, int], reason: str
) -> None:
    assert bad_inner(host, end, families, fields) == reason


@ENDS
@SIX_INSIDE
@pytest.mark.parametrize(("fields", "reason"), BAD_INNER[6])
def test_a_malformed_inner_ipv6_header_is_dropped_by_name(
    host: Host, end: str, families: Families, fields: dict[str, int], reason: str
) -> None:
    assert bad_inner(host, end, families, fields) == reason


@FAMILIES
@pytest.mark.parametrize(
    ("end", "ends", "reason"),
    [
        pytest.param(GATEWAY, ("endpoint", "foreign"), "inner_spoofed", id="to anywhere"),
        pytest.param(GATEWAY, ("foreign", "inside"), "endpoint_unknown", id="from no endpoint"),
        pytest.param(GATEWAY, ("mapped", "inside"), "endpoint_unknown", id="from a mapped address"),
        pytest.param(GATEWAY, ("inside", "endpoint"), "inner_spoofed", id="turned back"),
        pytest.param(WORKLOAD, ("foreign", "endpoint"), "inner_spoofed", id="from another instance"),
        pytest.param(WORKLOAD, ("inside", "foreign"), "endpoint_unknown", id="to no endpoint"),
        pytest.param(WORKLOAD, ("endpoint", "inside"), "inner_spoofed", id="turned back to the node"),
    ],
)
def test_an_authentic_packet_may_only_speak_for_its_tunnel(
    host: Host, families: Families, end: str, ends: tuple[str, str], reason: str
) -> None:
    source, destination = (getattr(families, name) for name in ends)
    inner = ip(source, destination) / UDP() / b"payload of a spoofer"
    assert host.dropped(end, frame_of(end, families, inner)) == reason


@ENDS
@FAMILIES
def test_an_endpoint_of_another_tunnel_is_not_served_by_this_one(
    host: Host, end: str, families: Families
) -> None:
    host.add_other_tunnel()
    for plane in (host.gateway, host.workload):
        plane.set_endpoint(families.inside, families.endpoint, Endpoint(OTHER_TUNNEL))
    assert host.dropped(end, frame_of(end, families)) == "endpoint_unknown"


@ENDS
@OPENED
def test_a_tunnel_without_an_inside_ipv6_address_takes_no_ipv6(
    host: Host, end: str, families: Families
) -> None:
    host.gateway.set_tunnel(gateway_tunnel(inside6=None))
    host.workload.set_tunnel(workload_tunnel(families.over, inside6=None))
    expected = None if families.inner == 4 else "inner_spoofed"
    assert host.dropped(end, frame_of(end, families)) == expected


@ENDS
@FAMILIES
def test_each_end_takes_tunnels_of_its_role_only(host: Host, end: str, families: Families) -> None:
    host.gateway.set_tunnel(workload_tunnel(families.over))
    host.workload.set_tunnel(gateway_tunnel())
    assert host.dropped(end, frame_of(end, families)) == "tunnel_unknown"


@ENDS
@OPENED
def test_congestion_marked_by_the_underlay_is_carried_inside(
    host: Host, end: str, families: Families
) -> None:
    for inside, expected in ((1, 3), (2, 3), (3, 3)):
        inner = inner_of(end, families)
        set_traffic_class(inner, 0xB8 | inside)
        frame = frame_of(end, families, inner)
        set_traffic_class(frame[1], 3)
        marked = inner.copy()
        set_traffic_class(marked, 0xB8 | expected)
        assert host.run(end, frame).packet == unwrapped(marked)
    frame = frame_of(end, families)
    set_traffic_class(frame[1], 3)
    assert host.dropped(end, frame) == "congestion"


@OPENED
def test_an_endpoint_with_an_interface_gets_its_packets_past_the_stack(
    host: Host, families: Families
) -> None:
    host.workload.set_endpoint(families.inside, families.endpoint, Endpoint(TUNNEL, interface=POD_INTERFACE))
    ran = host.run(WORKLOAD, frame_of(WORKLOAD, families))
    assert ran == (REDIRECT, unwrapped(inner_of(WORKLOAD, families)))


def test_without_its_tunnel_a_packet_is_dropped(host: Host) -> None:
    host.gateway.detach_instance(INSTANCE_INTERFACE)
    host.gateway.delete_tunnel(TUNNEL)
    assert host.dropped(GATEWAY, frame_of(GATEWAY, ALL[0])) == "tunnel_unknown"


def test_the_gue_layer_reads_what_it_writes(host: Host) -> None:
    frame = frame_of(GATEWAY, ALL[0])
    assert frame.__class__(bytes(frame))[GUE].tunnel == TUNNEL
