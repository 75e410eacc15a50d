"""Control packets: what moves a tunnel, and what does not."""

from __future__ import annotations

import time

import pytest
from gue_scapy import HELLO, HELLO_ACK
from host import (
    EPIC,
    NAT,
    NAT_PORT,
    NODE,
    OLD_KEY,
    PASS,
    TUNNEL,
    Host,
    control,
    gateway_tunnel,
    hello,
    outer,
    workload_tunnel,
)
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw

from epic.bpf import wire
from epic.bpf.dataplane import Peer

pytestmark = pytest.mark.root

GATEWAY, WORKLOAD = "gateway gateway_underlay_ingress", "workload workload_underlay_ingress"
ENDS = pytest.mark.parametrize("end", [GATEWAY, WORKLOAD], ids=["gateway", "workload"])


def acknowledgement(counter: int, **changes: object) -> Packet:
    return control(EPIC, NODE, counter, HELLO_ACK, **changes)


def packet_for(end: str, counter: int, **changes: object) -> Packet:
    return hello(counter, **changes) if end == GATEWAY else acknowledgement(counter, **changes)


def test_a_hello_moves_the_tunnel_to_where_it_came_from(host: Host) -> None:
    packet = hello(1000)
    packet[IP].src, packet[UDP].sport = "198.51.100.9", 4444
    before = time.monotonic_ns()
    assert host.run(GATEWAY, packet) == (PASS, bytes(packet))
    peer = host.gateway.peer(TUNNEL)
    assert peer is not None
    assert (str(peer.address), peer.port, peer.counter) == ("198.51.100.9", 4444, 1000)
    assert before <= peer.last_hello_ns <= time.monotonic_ns()


def test_an_acknowledgement_shows_life_and_moves_nothing(host: Host) -> None:
    assert host.workload.peer(TUNNEL) == Peer(EPIC, 6080, 0, 0)
    packet = acknowledgement(5)
    packet[IP].src = "198.51.100.9"
    assert host.run(WORKLOAD, packet) == (PASS, bytes(packet))
    peer = host.workload.peer(TUNNEL)
    assert peer is not None
    assert (peer.address, peer.port, peer.counter) == (EPIC, 6080, 5)
    assert peer.last_hello_ns > 0


def test_before_the_first_hello_the_far_end_is_unknown(host: Host) -> None:
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel())
    assert host.gateway.peer(TUNNEL) is None


def test_a_change_of_the_tunnel_keeps_what_was_observed(host: Host) -> None:
    before = host.gateway.peer(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel(active=0))
    assert before == host.gateway.peer(TUNNEL)
    assert before is not None
    assert (before.address, before.port) == (NAT, NAT_PORT)


@ENDS
def test_only_a_higher_counter_is_taken(host: Host, end: str) -> None:
    assert host.dropped(end, packet_for(end, 1 << 40)) is None
    for counter in (0, 1, (1 << 40) - 1, 1 << 40):
        assert host.dropped(end, packet_for(end, counter)) == "control_replayed", counter
    assert host.dropped(end, packet_for(end, (1 << 64) - 1)) is None


@ENDS
def test_a_captured_packet_from_another_address_changes_nothing(host: Host, end: str) -> None:
    packet = packet_for(end, 77)
    host.run(end, packet)
    packet[IP].src, packet[UDP].sport = "198.51.100.66", 666
    assert host.dropped(end, packet) == "control_replayed"


@ENDS
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"tag": b"\1" * 8}, "tag_wrong", id="tag"),
        pytest.param({"key": bytes(16)}, "tag_wrong", id="key"),
        pytest.param({"tunnel": 99}, "tunnel_unknown", id="tunnel"),
        pytest.param({"version": 1}, "gue_version", id="version"),
        pytest.param({"hlen": 4}, "gue_header_length", id="header length"),
        pytest.param({"flags": 2}, "gue_flags", id="flags"),
        pytest.param({"proto": 1}, "control_type", id="type"),
    ],
)
def test_a_wrong_control_packet_is_dropped_by_name(
    host: Host, end: str, changes: dict[str, object], reason: str
) -> None:
    assert host.dropped(end, packet_for(end, 50, **changes)) == reason


@ENDS
def test_every_byte_before_the_tag_is_signed(host: Host, end: str) -> None:
    good = bytes(packet_for(end, 50))
    start, stop = len(good) - wire.CONTROL_LENGTH, len(good)
    for position in range(start, stop):
        changed = bytearray(good)
        changed[position] ^= 0x04
        assert host.dropped(end, bytes(changed)) is not None, position
    assert host.dropped(end, good) is None


def test_each_end_takes_one_type_so_that_nothing_can_be_turned_back(host: Host) -> None:
    assert host.dropped(GATEWAY, control(NAT, EPIC, 50, HELLO_ACK)) == "control_type"
    assert host.dropped(WORKLOAD, control(EPIC, NODE, 50, HELLO)) == "control_type"


@ENDS
def test_anything_after_the_message_is_refused(host: Host, end: str) -> None:
    packet = packet_for(end, 50)
    assert host.dropped(end, packet / Raw(b"more")) == "control_length"


@ENDS
def test_both_keys_verify(host: Host, end: str) -> None:
    assert host.dropped(end, packet_for(end, 50, key=OLD_KEY)) is None
    host.gateway.set_tunnel(gateway_tunnel(keys=(None, gateway_tunnel().keys[1])))
    host.workload.set_tunnel(workload_tunnel(keys=(None, gateway_tunnel().keys[1])))
    assert host.dropped(end, packet_for(end, 51, key=OLD_KEY)) == "tag_wrong"


@ENDS
def test_it_must_come_to_the_tunnels_own_address(host: Host, end: str) -> None:
    packet = packet_for(end, 50)
    packet[IP].dst = str(NODE if end == GATEWAY else EPIC)
    assert host.dropped(end, packet) == "tunnel_address"


def test_the_kernel_takes_what_the_agent_writes(host: Host) -> None:
    payload = wire.encode(wire.Control(wire.Kind.HELLO, TUNNEL, 60, 1, 2), OLD_KEY)
    assert host.dropped(GATEWAY, outer(NAT, EPIC) / Raw(payload)) is None
    peer = host.gateway.peer(TUNNEL)
    assert peer is not None
    assert peer.counter == 60
