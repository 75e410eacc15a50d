"""Packets decoded for people."""

from __future__ import annotations

import json
from ipaddress import ip_address

from epic.trace import events, output

_ICMP = bytes.fromhex("450000540000400040010000") + ip_address("100.64.0.1").packed + bytes([192, 0, 2, 1])
_OUTER = bytes.fromhex("450000840000400040110000") + bytes([172, 30, 2, 2, 172, 30, 2, 1])
_UDP = bytes.fromhex("17c017c000700000")
_DATA = bytes.fromhex("04040000") + (7).to_bytes(4, "big") + bytes(12)


def test_a_data_packet_is_its_inner_packet_and_the_tunnel() -> None:
    found = events.packet(_OUTER + _UDP + _DATA + _ICMP + bytes(8))
    assert found is not None
    assert (str(found.source), found.protocol, found.tunnel) == ("100.64.0.1", "icmp", 7)
    assert found.outer == "172.30.2.2:6080 > 172.30.2.1:6080"


def test_what_is_no_ip_is_nothing() -> None:
    assert events.packet(bytes(40)) is None


def test_a_drop_says_its_reason() -> None:
    step = events.Step(5, 1, "up0", "in", "dropped", 84, events.packet(_ICMP), "tag_wrong", "the tag")
    assert "dropped: tag_wrong (the tag)" in output.as_text(step, 0)
    assert json.loads(output.as_json(step, 2))["time_ns"] == 7
