# SPDX-License-Identifier: Apache-2.0
"""Packets and steps, decoded for people."""

from __future__ import annotations

import json
import struct
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from epic.bpf.tables.drop_reasons import DROP_REASONS
from epic.trace import events, output

_TARGET = ip_address("192.0.2.1")
_ICMP = bytes.fromhex("45000054000040003f010000") + ip_address("100.64.0.1").packed + _TARGET.packed
_TCP6 = (
    bytes.fromhex("6000000000140640")
    + ip_address("fd00::1").packed
    + ip_address("fd00::2").packed
    + struct.pack("!HHIIBBHHH", 4000, 80, 1, 0, 0x50, 0x12, 0, 0, 0)
)
_OUTER = bytes.fromhex("450000840000400040110000") + bytes([172, 30, 2, 2, 172, 30, 2, 1])
_OUTER6 = bytes.fromhex("6000000000641140") + ip_address("fd01::1").packed + ip_address("fd01::2").packed
_UDP = bytes.fromhex("17c017c000700000")
_GUE = bytes.fromhex("04040000") + (7).to_bytes(4, "big") + bytes(12)
_DATA = _OUTER + _UDP + _GUE + _ICMP
_HELLO = _OUTER + _UDP + bytes.fromhex("20800000") + (9).to_bytes(4, "big")
_REASONS = {
    number: f"SKB_DROP_REASON_{name}"
    for number, name in ((2, "NO_SOCKET"), (3, "QUEUE_PURGE"), (4, "TC_EGRESS"))
}


def run(kind: int, **changes: Any) -> list[events.Step]:
    """The steps of an event, of a packet that came in at up0 of namespace 1."""
    fields = {
        "entered": 5,
        "left": 6,
        "kind": kind,
        "cpu": 0,
        "before_namespace": 1,
        "namespace": 1,
        "before_length": 132,
        "length": 84,
        "before_as": events.OTHER,
        "after_as": events.OTHER,
        "tunnel": 0,
        "before_ether": 0x0800,
        "ether": 0x0800,
        "why": 0,
        "ours": -1,
        "reserved": 0,
        "before_name": b"up0",
        "name": b"up0",
        "before_data": b"",
        "data": b"",
    }
    return events.steps(events.RUN.pack(*(fields | changes).values()), _REASONS)


def told(steps: list[events.Step]) -> list[tuple[str, str, str]]:
    return [(step.reason or step.step, step.interface, step.direction) for step in steps]


DATA_IN: dict[str, Any] = {"before_as": events.DATA, "before_data": _DATA}
ICMP_OUT: dict[str, Any] = {"after_as": events.OTHER, "data": _ICMP}
SENT: dict[str, Any] = {"before_data": _ICMP, "after_as": events.DATA, "data": _DATA}


@pytest.mark.parametrize("outer", [_OUTER, _OUTER6])
def test_a_data_packet_is_its_inner_packet_and_the_tunnel(outer: bytes) -> None:
    found = events.packet(outer + _UDP + _GUE + _ICMP + bytes(8))
    assert (str(found.source), found.protocol, found.tunnel) == ("100.64.0.1", "icmp", 7)
    assert found.outer is not None
    assert found.outer.endswith(":6080")


def test_an_inner_ipv6_packet_has_ports_and_flags() -> None:
    found = events.packet(_OUTER + _UDP + _GUE + _TCP6)
    assert (found.protocol, found.source_port, found.destination_port, found.flags) == ("tcp", 4000, 80, "SA")


def test_a_control_packet_has_its_kind() -> None:
    assert (events.packet(_HELLO).protocol, events.packet(_HELLO).tunnel) == ("hello", 9)


@pytest.mark.parametrize(("ether", "name"), [(0x0806, "arp"), (0x88F7, "ethertype 0x88f7")])
def test_what_is_no_ip_has_no_addresses(ether: int, name: str) -> None:
    found = events.packet(bytes(40), ether)
    assert (found.source, found.protocol) == (None, name)
    step = events.Step(5, 1, "epg64400001298c", "in", "dropped", 28, found, "instance_protocol", "text")
    assert f"#---  epg64400001298c in  dropped: instance_protocol (text)  {name}  28" in output.as_text(
        step, 0
    )
    assert json.loads(output.as_json(step, 0, "node1"))["destination"] is None


@pytest.mark.parametrize(("name", "sender"), [("epg64400001298c", "instance"), ("vethpod", "endpoint")])
def test_the_sender_is_told_by_its_interface(name: str, sender: str) -> None:
    steps = run(events.SENT, before_name=name.encode(), **SENT)
    assert told(steps) == [(f"{sender} sends", name, "in"), ("encapsulated", "up0", "out")]


def test_what_leaves_as_it_was_is_forwarded() -> None:
    older = _DATA[:8] + bytes([63]) + _DATA[9:]
    for changes in (
        DATA_IN | {"after_as": events.DATA, "data": _DATA},
        {"entered": 0, "after_as": events.DATA, "data": older},
    ):
        assert told(run(events.SENT, **changes)) == [("forwarded", "up0", "out")]


def passed_on(kind: int, visited: int = 0b10) -> bytes:
    """A packet of a client's that came in at sibling 1, sent on by it; behind a fresh outer header."""
    header = struct.pack("!BBHHBB8x", 3, 4, 0, visited, 0x11, 0x10 | kind)
    return _OUTER[:8] + bytes([64]) + _OUTER[9:] + _UDP + header + _TCP6


def test_a_packet_passed_on_is_the_clients_and_tells_its_way() -> None:
    found = events.packet(passed_on(0, 0b1010))
    assert (found.protocol, found.source_port, found.tunnel) == ("tcp", 4000, None)
    assert found.passage == "passed on by 1, came in at 1, asked 1,3"
    step = events.Step(5, 1, "up0", "out", "passed on", 100, found)
    assert "passed on by 1, came in at 1, asked 1,3  outer 172.30.2.2:6080 > " in output.as_text(step, 0)


@pytest.mark.parametrize(
    ("kind", "step"), [(0, "passed on"), (1, "returned"), (2, "passed on"), (3, "found")]
)
def test_what_a_sibling_is_sent_is_told_by_its_kind(kind: int, step: str) -> None:
    sent = {"after_as": events.PASSED_ON, "data": passed_on(kind)}
    assert told(run(events.SENT, before_data=_TCP6, **sent)) == [
        ("client sends", "up0", "in"),
        (step, "up0", "out"),
    ]
    wrapped = {"before_as": events.PASSED_ON, "before_data": passed_on(0)}
    assert told(run(events.SENT, **wrapped, **sent)) == [(step, "up0", "out")]


def test_what_a_sibling_took_is_decapsulated_and_delivered() -> None:
    taken = {"before_as": events.PASSED_ON, "before_data": passed_on(0), "data": _TCP6}
    steps = run(events.SENT, **taken, name=b"epg64400001298c")
    assert told(steps) == [("decapsulated", "up0", "in"), ("delivered", "epg64400001298c", "out")]
    assert {step.packet.passage for step in steps} == {"passed on by 1, came in at 1, asked 1"}


def test_the_answer_of_the_owner_is_learned() -> None:
    answer = {"before_as": events.PASSED_ON, "before_data": passed_on(3)}
    steps = run(events.FREED, **answer, after_as=events.PASSED_ON, data=passed_on(3), why=2)
    assert told(steps) == [("learned", "up0", "in")]


def test_what_left_the_tunnel_is_decapsulated_and_delivered() -> None:
    steps = run(events.TAKEN, **DATA_IN, **ICMP_OUT, name=b"")
    assert told(steps) == [("decapsulated", "up0", "in"), ("delivered", "up0", "in")]
    assert {step.packet.tunnel for step in steps} == {7}


def test_what_xdp_took_out_is_decapsulated_where_it_is_received() -> None:
    inside: dict[str, Any] = {"before_as": events.INSIDE, "before_data": _ICMP, "tunnel": 7}
    received = run(events.RECEIVED, **inside)
    assert told(received) == [("decapsulated", "up0", "in")]
    assert received[0].packet.tunnel == 7
    assert told(run(events.SENT, **inside, **ICMP_OUT, name=b"veth1")) == [("delivered", "veth1", "out")]


@pytest.mark.parametrize("why", [2, 3])
def test_what_sockets_took_is_not_lost(why: int) -> None:
    assert told(run(events.FREED, **DATA_IN, **ICMP_OUT, why=why, name=b""))[-1][0] == "delivered"


def test_drops_are_named_and_have_a_direction() -> None:
    assert told(run(events.FREED, **DATA_IN, after_as=events.DATA, data=_DATA, why=2)) == [
        ("NO_SOCKET", "up0", "in")
    ]
    out = {"before_name": b"vethpod", "before_data": _ICMP, "data": _ICMP, "ours": 0}
    refused = (DROP_REASONS[0][0], "up0", "out")
    for why in (4, 0):  # a kernel that names the drops of tc, and one that does not
        assert told(run(events.FREED, **out, why=why)) == [("endpoint sends", "vethpod", "in"), refused]


def test_a_line_says_its_reason() -> None:
    step = events.Step(5, 1, "up0", "in", "dropped", 84, events.packet(_ICMP), "tag_wrong", "the tag")
    assert "dropped: tag_wrong (the tag)" in output.as_text(step, 0)
    line = json.loads(output.as_json(step, 2, "node1"))
    assert (line["time_ns"], line["node"]) == (7, "node1")


def test_colours_are_the_flow_s_and_only_for_terminals() -> None:
    there = events.Step(5, 1, "up0", "in", "delivered", 84, events.packet(_TCP6))
    swapped = _TCP6[:8] + _TCP6[24:40] + _TCP6[8:24] + _TCP6[42:44] + _TCP6[40:42] + _TCP6[44:]
    back = events.Step(5, 1, "up0", "out", "delivered", 84, events.packet(swapped))
    assert output.coloured(there, "x") == output.coloured(back, "x")
    assert output.wants_colour(True, {"TERM": "xterm"})
    for terminal, environment in ((False, {}), (True, {"NO_COLOR": "1"}), (True, {"TERM": "dumb"})):
        assert not output.wants_colour(terminal, environment)


def test_the_summary_counts_what_was_left_out() -> None:
    lines = output.summary(Counter({"delivered": 2}), Counter({"tag_wrong": 1}), (3, 0)).splitlines()
    assert [line.strip() for line in lines[:2]] == ["2  delivered", "1  dropped: tag_wrong"]
    assert "3 events over the rate" in lines[2]
