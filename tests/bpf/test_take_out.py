# SPDX-License-Identifier: Apache-2.0
"""Data taken out before the kernel makes buffers: the same packets as by tc, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from frames import (
    ALL,
    ETHER,
    FAMILIES,
    POD_INTERFACE,
    TUNNEL,
    Families,
    acknowledgement,
    gue,
    hello,
    outer,
    set_traffic_class,
)
from host import GATEWAY_XDP, WORKLOAD_XDP, Host
from kernel import RUNS_XDP
from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw
from testrun import XDP_PASS, TakenOut

from epic.bpf.dataplane import Endpoint

pytestmark = [pytest.mark.root, RUNS_XDP]

ENDS = pytest.mark.parametrize("end", [GATEWAY_XDP, WORKLOAD_XDP], ids=["gateway", "workload"])
METADATA = 16


def inner_of(end: str, families: Families) -> Packet:
    return (families.reply() if end == GATEWAY_XDP else families.request()) / TCP() / b"payload"


def outer_of(end: str, families: Families) -> Packet:
    if end == GATEWAY_XDP:
        return outer(families.nat, families.epic)
    return outer(families.epic, families.node)


def frame_of(end: str, families: Families, **changes: Any) -> Packet:
    inner = inner_of(end, families)
    return outer_of(end, families) / gue(inner, **changes) / inner


def untouched(host: Host, end: str, frame: Packet | bytes) -> bool:
    return host.take_out(end, frame) == TakenOut(XDP_PASS, bytes(frame), b"")


@ENDS
@FAMILIES
def test_a_good_packet_is_taken_out(host: Host, end: str, families: Families) -> None:
    before = host.state(end.split(maxsplit=1)[0])
    out = host.take_out(end, frame_of(end, families))
    assert out[:2] == (XDP_PASS, bytes(ETHER / inner_of(end, families)))
    assert len(out.metadata) == METADATA
    assert any(out.metadata[:8])
    assert host.state(end.split(maxsplit=1)[0]) == before


@FAMILIES
def test_what_is_left_in_front_says_where_to_deliver(host: Host, families: Families) -> None:
    to_stack = host.take_out(WORKLOAD_XDP, frame_of(WORKLOAD_XDP, families)).metadata
    pod = Endpoint(TUNNEL, interface=POD_INTERFACE)
    host.workload.set_endpoint(families.inside, families.endpoint, pod)
    to_pod = host.take_out(WORKLOAD_XDP, frame_of(WORKLOAD_XDP, families)).metadata
    assert to_stack[:12] == to_pod[:12]
    assert to_stack[12:] == bytes(4)
    assert to_pod[12:] == host.pod.to_bytes(4, "little")
    to_instance = host.take_out(GATEWAY_XDP, frame_of(GATEWAY_XDP, families)).metadata
    assert to_instance[12:] == host.ifindex.to_bytes(4, "little")
    assert to_instance[:8] != to_pod[:8]


@ENDS
@FAMILIES
def test_all_that_is_wrong_is_left_to_the_filter_that_names_it(
    host: Host, end: str, families: Families
) -> None:
    for changes in (
        {"tag": bytes(8)},
        {"key": bytes(16)},
        {"tunnel": 99},
        {"service": 4},
        {"version": 1},
        {"hlen": 3},
        {"flags": 1},
        {"proto": 59},
        {"proto": 41 if families.inner == 4 else 4},
    ):
        assert untouched(host, end, frame_of(end, families, **changes)), changes


@ENDS
@FAMILIES
def test_a_cut_packet_is_left(host: Host, end: str, families: Families) -> None:
    good = bytes(frame_of(end, families))
    for length in range(14, len(good)):
        assert untouched(host, end, good[:length]), length


@ENDS
@FAMILIES
def test_what_is_not_a_plain_data_packet_is_left(host: Host, end: str, families: Families) -> None:
    inner = inner_of(end, families)
    marked = frame_of(end, families)
    set_traffic_class(marked[1], 3)
    elsewhere = frame_of(end, families)
    elsewhere[1].dst = str(families.stranger)
    another_port = frame_of(end, families)
    another_port[UDP].dport = 6084
    longer = frame_of(end, families) / Raw(b"more")
    longer[UDP].len = len(frame_of(end, families)[UDP])
    tagged = ETHER / Dot1Q(vlan=5) / frame_of(end, families)[1]
    control = hello(families, 90) if end == GATEWAY_XDP else acknowledgement(families, 90)
    for packet in (marked, elsewhere, another_port, longer, tagged, control, ETHER / inner):
        assert untouched(host, end, packet), packet.summary()


@ENDS
@pytest.mark.parametrize("families", ALL[:2], ids=str)
def test_odd_outer_ipv4_is_left(host: Host, end: str, families: Families) -> None:
    for fields in ({"flags": "MF"}, {"frag": 5}, {"options": [IPOption_NOP()] * 4}, {"len": 50}):
        frame = frame_of(end, families)
        for name, value in fields.items():
            setattr(frame[1], name, value)
        assert untouched(host, end, frame), fields


@ENDS
@FAMILIES
def test_padding_stays_behind_the_packet(host: Host, end: str, families: Families) -> None:
    out = host.take_out(end, bytes(frame_of(end, families)) + bytes(5))
    assert out.packet == bytes(ETHER / inner_of(end, families)) + bytes(5)


@FAMILIES
def test_lanes_come_to_ports_of_their_own(host: Host, families: Families) -> None:
    for port in range(6080, 6084):
        frame = frame_of(WORKLOAD_XDP, families)
        frame[UDP].dport = port
        out = host.take_out(WORKLOAD_XDP, frame)
        assert out.packet == bytes(ETHER / inner_of(WORKLOAD_XDP, families))
        frame = frame_of(GATEWAY_XDP, families)
        frame[UDP].dport = port
        assert untouched(host, GATEWAY_XDP, frame) == (port != 6080)
