# SPDX-License-Identifier: Apache-2.0
"""Outer headers of what comes from the underlay: cut off, malformed, or somebody else's."""

from __future__ import annotations

import pytest
from frames import ALL, ETHER, FAMILIES, OPENED, Families, gue, ip, outer
from host import GATEWAY, WORKLOAD, Host
from receiving import ENDS, OVER, frame_of, inner_of, outer_of, unwrapped
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw
from testrun import PASS

pytestmark = pytest.mark.root


@ENDS
@FAMILIES
def test_a_packet_cut_anywhere_is_dropped(host: Host, end: str, families: Families) -> None:
    good = bytes(frame_of(end, families))
    for length in range(families.outer_end, len(good)):
        assert host.dropped(end, good[:length]) == "outer_length", length
    for length in range(families.outer_end - 8, families.outer_end):
        assert host.run(end, good[:length]) == (PASS, good[:length]), length


@ENDS
@FAMILIES
def test_a_packet_that_is_too_short_for_its_headers_is_truncated(
    host: Host, end: str, families: Families
) -> None:
    inner = bytes(inner_of(end, families))
    for length in (0, 1, families.header - 1):
        frame = outer_of(end, families) / gue(inner_of(end, families)) / Raw(inner[:length])
        assert host.dropped(end, frame) == "truncated", length
    for length in range(20):
        frame = outer_of(end, families) / Raw(bytes(gue(inner_of(end, families)))[:length])
        assert host.dropped(end, frame) == "truncated", length


@ENDS
@pytest.mark.parametrize("families", ALL[:2], ids=str)
@pytest.mark.parametrize(
    ("header", "fields", "reason"),
    [
        pytest.param(UDP, {"len": 20}, "outer_length", id="UDP length"),
        pytest.param(UDP, {"len": 3}, "outer_length", id="UDP length below its header"),
        pytest.param(IP, {"len": 67}, "outer_length", id="IPv4 length below all headers"),
        pytest.param(IP, {"len": 2000}, "outer_length", id="IPv4 length above the frame"),
        pytest.param(IP, {"flags": "MF"}, "outer_fragment", id="first fragment"),
        pytest.param(IP, {"options": [IPOption_NOP()] * 4}, "outer_options", id="options"),
    ],
)
def test_a_wrong_outer_ipv4_header_is_dropped_by_name(
    host: Host, end: str, families: Families, header: type[Packet], fields: dict[str, object], reason: str
) -> None:
    frame = frame_of(end, families)
    for name, value in fields.items():
        setattr(frame[header], name, value)
    assert host.dropped(end, frame) == reason


@ENDS
@pytest.mark.parametrize("families", ALL[2:], ids=str)
@pytest.mark.parametrize(
    ("header", "fields"),
    [
        pytest.param(UDP, {"len": 20}, id="UDP length"),
        pytest.param(IPv6, {"plen": 67}, id="shorter"),
        pytest.param(IPv6, {"plen": 0}, id="jumbo"),
        pytest.param(IPv6, {"plen": 2000}, id="above the frame"),
    ],
)
def test_a_wrong_outer_ipv6_header_is_dropped_by_name(
    host: Host, end: str, families: Families, header: type[Packet], fields: dict[str, object]
) -> None:
    frame = frame_of(end, families)
    for name, value in fields.items():
        setattr(frame[header], name, value)
    assert host.dropped(end, frame) == "outer_length"


@FAMILIES
def test_a_workload_node_takes_a_tunnel_at_its_own_address_only(host: Host, families: Families) -> None:
    frame = frame_of(WORKLOAD, families)
    frame[1].dst = str(families.epic_second)
    assert host.dropped(WORKLOAD, frame) == "tunnel_address"


@OPENED
def test_an_epic_node_takes_packets_at_all_of_its_addresses(host: Host, families: Families) -> None:
    frame = frame_of(GATEWAY, families)
    frame[1].dst = str(families.epic_second)
    assert host.run(GATEWAY, frame).packet == unwrapped(inner_of(GATEWAY, families))


def others(families: Families) -> dict[str, Packet | bytes]:
    """What the tunnel has nothing to do with."""
    inner = families.reply() / TCP()
    to_us = ip(families.nat, families.epic)
    found: dict[str, Packet | bytes] = {
        "TCP": ETHER / to_us / TCP(dport=6080) / Raw(bytes(60)),
        "another version": outer(families.nat, families.epic, version=5) / gue(inner) / inner,
        "VLAN": ETHER / Dot1Q(vlan=5) / to_us / UDP(dport=6080) / Raw(bytes(60)),
        "somebody else's": outer(families.nat, families.stranger) / gue(inner) / inner,
        "somebody else's, broken": outer(families.nat, families.stranger) / gue(inner, version=2) / inner,
        "somebody else's, truncated": outer(families.nat, families.stranger) / Raw(b"1"),
        "half a UDP header": bytes(ETHER / to_us / UDP(dport=6080))[:-4],
    }
    if families.over == 4:
        found |= {
            "later fragment": outer(families.nat, families.epic, frag=10) / Raw(bytes(60)),
            "another port after options": ETHER
            / ip(families.nat, families.epic, options=[IPOption_NOP()] * 4)
            / UDP(dport=6090)
            / Raw(bytes(60)),
            "somebody else's with options": ETHER
            / ip(families.nat, families.stranger, options=[IPOption_NOP()] * 4)
            / UDP(dport=6080)
            / Raw(bytes(60)),
        }
    else:
        found |= {
            "fragment": ETHER / to_us / IPv6ExtHdrFragment(m=1) / UDP(dport=6080) / Raw(bytes(60)),
            "extension header": ETHER / to_us / IPv6ExtHdrDestOpt() / UDP(dport=6080) / Raw(bytes(60)),
        }
    return found


@ENDS
@OVER
def test_what_is_not_ours_is_left_alone(host: Host, end: str, families: Families) -> None:
    for name, packet in others(families).items():
        assert host.dropped(end, packet) is None, name
        assert host.run(end, packet) == (PASS, bytes(packet)), name
