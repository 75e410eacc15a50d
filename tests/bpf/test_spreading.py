# SPDX-License-Identifier: Apache-2.0
"""Source ports and lanes: how flows spread over paths, and that each keeps to its own."""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
from frames import (
    ETHER,
    FAMILIES,
    Families,
    acknowledgement,
    hello,
    wrapped,
)
from gue_scapy import SPREAD
from host import EGRESS, GATEWAY, INSTANCE, POD, WORKLOAD, Host, gateway_tunnel, workload_tunnel
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

EXITS = pytest.mark.parametrize("exit_", [EGRESS, POD], ids=["stack", "pod"])
FLOWS = range(1000, 1040)
ENTROPY = range(49152, 65536)
PEER_LANES_OFFSET = 32


def header_of(exit_: str, families: Families) -> Packet:
    return families.request() if exit_ == INSTANCE else families.reply()


def ports(
    host: Host, families: Families, exit_: str, check: Callable[[Packet, bytes], bytes]
) -> set[tuple[str, int, int]]:
    """Outer destination and ports of many flows; each flow keeps its own, and all else is as ever."""
    found: dict[int, set[tuple[str, int, int]]] = defaultdict(set)
    for flow in FLOWS:
        for payload in (b"first", b"second"):
            for transport in (TCP(sport=flow, dport=80),):
                inner = header_of(exit_, families) / transport / payload
                packet = Ether(host.run(exit_, ETHER / inner).packet)
                found[flow].add((packet[1].dst, packet[UDP].sport, packet[UDP].dport))
                assert bytes(packet) == check(inner, bytes(packet))
    assert all(len(ways) == 1 for ways in found.values())
    return {next(iter(ways)) for ways in found.values()}


def silence(host: Host, lane: int, role: str = "gateway") -> None:
    """As if the lane's last control packet were long ago."""
    _set_seen(host, lane, role, 1)


def hear_for_long(host: Host, lane: int, role: str = "gateway") -> None:
    """As if control packets went on for an hour: many flows can take longer than a lane may be silent."""
    _set_seen(host, lane, role, time.monotonic_ns() + 3600 * 10**9)


def _set_seen(host: Host, lane: int, role: str, seen_ns: int) -> None:
    slot = host.slot(role)
    peers = host.map(role, "peers")
    value = bytearray(peers.get(slot))
    size = (len(value) - PEER_LANES_OFFSET) // 4
    struct.pack_into("=Q", value, PEER_LANES_OFFSET + lane * size + 8, seen_ns)
    peers.set(slot, bytes(value))


def learn_lanes(host: Host, families: Families, lanes: int, heard: int | None = None) -> None:
    for lane in range(lanes if heard is None else heard):
        assert host.dropped(GATEWAY, hello(families, 50, lane=lane, lanes=lanes, sport=7000 + lane)) is None
        hear_for_long(host, lane)


def answer_lanes(host: Host, families: Families, lanes: int, answered: int | None = None) -> None:
    for lane in range(lanes if answered is None else answered):
        packet = acknowledgement(families, 50, lane=lane, lanes=lanes, dport=6080 + lane)
        assert host.dropped(WORKLOAD, packet) is None
        hear_for_long(host, lane, role="workload")


def test_without_lanes_there_is_one_port(host: Host) -> None:
    families = Families(4, 4)
    for exit_ in (INSTANCE, EGRESS, POD):
        to_node = exit_ == INSTANCE

        def expected(inner: Packet, _: bytes, to_node: bool = to_node) -> bytes:
            return bytes(wrapped(families, inner, to_node=to_node))

        assert len(ports(host, families, exit_, expected)) == 1


@EXITS
@FAMILIES
@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_a_workload_node_sends_from_the_port_of_the_flows_lane(
    host: Host, families: Families, exit_: str, lanes: int
) -> None:
    host.workload.set_tunnel(workload_tunnel(families.over, lanes=lanes))
    answer_lanes(host, families, lanes)

    def expected(inner: Packet, frame: bytes) -> bytes:
        return bytes(wrapped(families, inner, to_node=False, sport=Ether(frame)[UDP].sport))

    seen = ports(host, families, exit_, expected)
    assert {source for _, source, _ in seen} == set(range(6080, 6080 + lanes))
    assert {destination for *_, destination in seen} == {6080}


@EXITS
@FAMILIES
def test_a_workload_node_may_send_from_any_port(host: Host, families: Families, exit_: str) -> None:
    for lanes in (1, 4):
        host.workload.set_tunnel(workload_tunnel(families.over, lanes=lanes, spread=True))

        def expected(inner: Packet, frame: bytes) -> bytes:
            return bytes(wrapped(families, inner, to_node=False, sport=Ether(frame)[UDP].sport))

        seen = {source for _, source, _ in ports(host, families, exit_, expected)}
        assert len(seen) > len(FLOWS) * 0.9
        assert all(port in ENTROPY for port in seen)


@FAMILIES
@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_an_epic_node_sends_to_where_the_flows_lane_was_seen(
    host: Host, families: Families, lanes: int
) -> None:
    learn_lanes(host, families, lanes)

    def expected(inner: Packet, frame: bytes) -> bytes:
        return bytes(wrapped(families, inner, port=Ether(frame)[UDP].dport))

    seen = ports(host, families, INSTANCE, expected)
    assert {destination for *_, destination in seen} == set(range(7000, 7000 + lanes))
    assert {source for _, source, _ in seen} == {6080}


@FAMILIES
def test_a_lane_that_was_not_heard_is_not_sent_to(host: Host, families: Families) -> None:
    learn_lanes(host, families, 4, heard=1)
    seen = ports(host, families, INSTANCE, lambda inner, _: bytes(wrapped(families, inner, port=7000)))
    assert len(seen) == 1


@EXITS
@FAMILIES
def test_a_lane_without_an_answer_is_not_sent_from(host: Host, families: Families, exit_: str) -> None:
    """The EPIC node does not know it, and takes nothing from it."""
    host.workload.set_tunnel(workload_tunnel(families.over, lanes=4))

    def expected(inner: Packet, frame: bytes) -> bytes:
        return bytes(wrapped(families, inner, to_node=False, sport=Ether(frame)[UDP].sport))

    assert {source for _, source, _ in ports(host, families, exit_, expected)} == {6080}
    answer_lanes(host, families, 4, answered=2)
    assert {source for _, source, _ in ports(host, families, exit_, expected)} == {6080, 6081}
    silence(host, lane=1, role="workload")
    assert {source for _, source, _ in ports(host, families, exit_, expected)} == {6080}


@FAMILIES
def test_a_lane_that_fell_silent_is_not_sent_to(host: Host, families: Families) -> None:
    learn_lanes(host, families, 2)
    silence(host, lane=1)
    seen = ports(host, families, INSTANCE, lambda inner, _: bytes(wrapped(families, inner, port=7000)))
    assert len(seen) == 1


@FAMILIES
def test_an_epic_node_spreads_ports_only_where_there_is_no_nat(host: Host, families: Families) -> None:
    def asked(counter: int, port: int) -> set[int]:
        host.run(GATEWAY, hello(families, counter, lane_flags=SPREAD, sport=port))

        def expected(inner: Packet, frame: bytes) -> bytes:
            return bytes(wrapped(families, inner, port=port, sport=Ether(frame)[UDP].sport))

        return {source for _, source, _ in ports(host, families, INSTANCE, expected)}

    assert asked(50, 6080) == {6080}
    host.gateway.set_tunnel(gateway_tunnel(remote=families.nat))
    spread = asked(51, 6080)
    assert len(spread) > len(FLOWS) * 0.9
    assert all(port in ENTROPY for port in spread)
    assert asked(52, 33333) == {6080}


@FAMILIES
def test_fewer_lanes_take_effect_at_once(host: Host, families: Families) -> None:
    learn_lanes(host, families, 4)
    assert host.dropped(GATEWAY, hello(families, 99, lane=0, lanes=1, sport=7000)) is None
    seen = ports(host, families, INSTANCE, lambda inner, _: bytes(wrapped(families, inner, port=7000)))
    assert len(seen) == 1
