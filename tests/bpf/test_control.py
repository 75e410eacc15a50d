# SPDX-License-Identifier: Apache-2.0
"""Control packets: what moves a tunnel, and what does not."""

from __future__ import annotations

import select
import time
from ipaddress import IPv4Address
from typing import Any

import pytest
from frames import (
    ALL,
    ETHER,
    FAMILIES,
    GENERATION,
    KEY,
    NAT_PORT,
    OLD_KEY,
    TUNNEL,
    WRONG_KEY,
    Families,
    acknowledgement,
    control,
    hello,
    outer,
)
from gue_scapy import CHECKSUM, DIRECT, HELLO, HELLO_ACK, SPREAD
from host import GATEWAY, LANES, WORKLOAD, Host, gateway_tunnel, workload_tunnel
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw
from testrun import PASS

from epic.bpf.dataplane import Dataplane, Peer
from epic.bpf.packets import wire

pytestmark = pytest.mark.root

ENDS = pytest.mark.parametrize("end", [GATEWAY, WORKLOAD], ids=["gateway", "workload"])
OVER = pytest.mark.parametrize("families", [ALL[0], ALL[2]], ids=["IPv4", "IPv6"])


def packet_for(end: str, families: Families, counter: int, **changes: object) -> Packet:
    make = hello if end == GATEWAY else acknowledgement
    return make(families, counter, **changes)  # type: ignore[arg-type]


def heard_of(plane: Dataplane) -> dict[int, tuple[Peer, ...]]:
    return {id_: peers for id_, _, peers in plane.observed() if peers}


def peer_of(host: Host, lane: int = 0) -> Peer:
    peer = host.gateway.peer(TUNNEL, lane)
    assert peer is not None
    return peer


@OVER
def test_a_hello_moves_the_tunnel_to_where_it_came_from(host: Host, families: Families) -> None:
    packet = hello(families, 1000, sport=4444)
    packet[1].src = str(families.stranger)
    before = time.monotonic_ns()
    assert host.run(GATEWAY, packet) == (PASS, bytes(packet))
    peer = peer_of(host)
    assert (peer.address, peer.port, peer.counter) == (families.stranger, 4444, 1000)
    assert (peer.local, peer.lanes, peer.spread, peer.checksum) == (families.epic, 1, False, False)
    assert before <= peer.last_hello_ns <= time.monotonic_ns()


@OVER
def test_replies_go_out_from_the_address_that_hellos_come_to(host: Host, families: Families) -> None:
    packet = hello(families, 1000)
    packet[1].dst = str(families.epic_second)
    assert host.dropped(GATEWAY, packet) is None
    assert peer_of(host).local == families.epic_second


@OVER
def test_an_acknowledgement_shows_life_and_moves_nothing(host: Host, families: Families) -> None:
    packet = acknowledgement(families, 5, sport=666)
    before = host.run("workload workload_underlay_egress", replying(families))
    assert host.run(WORKLOAD, packet) == (PASS, bytes(packet))
    assert host.run("workload workload_underlay_egress", replying(families)) == before
    peer = host.workload.peer(TUNNEL)
    assert peer is not None
    assert peer.counter == 5
    assert peer.last_hello_ns > 0


def replying(families: Families) -> Packet:
    return ETHER / families.reply() / UDP()


def test_before_the_first_hello_the_far_end_is_unknown(host: Host) -> None:
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel())
    assert all(host.gateway.peer(TUNNEL, lane) is None for lane in LANES)


def test_only_far_ends_that_were_heard_are_listed(host: Host) -> None:
    host.add_other_tunnel()
    assert host.dropped(GATEWAY, hello(ALL[0], 50, lane=1, lanes=3)) is None
    assert heard_of(host.gateway) == {TUNNEL: (peer_of(host, 0), peer_of(host, 1))}
    assert host.dropped(GATEWAY, hello(ALL[0], 60)) is None
    assert heard_of(host.gateway) == {TUNNEL: (peer_of(host, 0),)}, "lanes that it has no more"
    assert heard_of(host.workload) == {}, "where it is declared to be, nobody was heard"


def test_a_tunnel_made_anew_has_forgotten_counters(host: Host) -> None:
    assert host.dropped(GATEWAY, hello(ALL[0], 1000)) is None
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel())
    assert host.dropped(GATEWAY, hello(ALL[0], 5)) is None


def test_a_change_of_the_tunnel_keeps_what_was_observed(host: Host) -> None:
    before = host.gateway.peer(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel(active=0))
    assert before == host.gateway.peer(TUNNEL)
    assert before is not None
    assert (before.address, before.port) == (ALL[0].nat, NAT_PORT)


@ENDS
@OVER
def test_only_a_higher_counter_is_taken(host: Host, end: str, families: Families) -> None:
    assert host.dropped(end, packet_for(end, families, 1 << 40)) is None
    for counter in (0, 1, (1 << 40) - 1, 1 << 40):
        assert host.dropped(end, packet_for(end, families, counter)) == "control_replayed", counter
    assert host.dropped(end, packet_for(end, families, (1 << 64) - 1)) is None


@ENDS
@OVER
def test_counters_are_per_lane(host: Host, end: str, families: Families) -> None:
    for lane in LANES:
        assert host.dropped(end, packet_for(end, families, 100 - lane, lane=lane, lanes=4)) is None
    for lane in LANES:
        replayed = packet_for(end, families, 100 - lane, lane=lane, lanes=4)
        assert host.dropped(end, replayed) == "control_replayed"
        assert host.dropped(end, packet_for(end, families, 101 - lane, lane=lane, lanes=4)) is None


@OVER
def test_each_lane_is_learnt_by_itself(host: Host, families: Families) -> None:
    for lane in LANES:
        assert host.dropped(GATEWAY, hello(families, 50, lane=lane, lanes=4, sport=5000 + lane)) is None
    ports = [peer_of(host, lane).port for lane in LANES]
    assert ports == [5000, 5001, 5002, 5003]
    assert {peer_of(host, lane).lanes for lane in LANES} == {4}
    assert host.dropped(GATEWAY, hello(families, 51, lane=2, lanes=4, sport=6000)) is None
    assert [peer_of(host, lane).port for lane in LANES] == [5000, 5001, 6000, 5003]
    assert heard_of(host.gateway) == {TUNNEL: tuple(peer_of(host, lane) for lane in LANES)}


@OVER
def test_what_a_hello_asks_for_is_kept(host: Host, families: Families) -> None:
    host.gateway.set_tunnel(gateway_tunnel(remote=families.nat))
    for counter, flags in enumerate((SPREAD, CHECKSUM, SPREAD | CHECKSUM, 0), 10):
        assert host.dropped(GATEWAY, hello(families, counter, lane_flags=flags, sport=6080)) is None
        peer = peer_of(host)
        assert (peer.spread, peer.checksum) == (bool(flags & SPREAD), bool(flags & CHECKSUM))


@OVER
def test_behind_a_nat_spreading_is_not_believed(host: Host, families: Families) -> None:
    def spread(counter: int, **changes: object) -> bool:
        fields: dict[str, Any] = {"sport": 6080} | changes
        packet = hello(families, counter, lane_flags=SPREAD, **fields)
        assert host.dropped(GATEWAY, packet) is None
        return peer_of(host).spread

    assert not spread(10)
    host.gateway.set_tunnel(gateway_tunnel(remote=families.stranger))
    assert not spread(11)
    host.gateway.set_tunnel(gateway_tunnel(remote=families.nat))
    assert spread(12)
    assert not spread(13, sport=6081)
    assert not spread(14, sport=NAT_PORT)


@ENDS
@OVER
def test_a_captured_packet_from_another_address_changes_nothing(
    host: Host, end: str, families: Families
) -> None:
    packet = packet_for(end, families, 77)
    host.run(end, packet)
    packet[1].src, packet[UDP].sport = str(families.stranger), 666
    assert host.dropped(end, packet) == ("control_replayed" if end == GATEWAY else "outer_source")


@ENDS
@OVER
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"tag": b"\1" * 8}, "tag_wrong", id="tag"),
        pytest.param({"key": WRONG_KEY}, "tag_wrong", id="key"),
        pytest.param({"tunnel": 99}, "tunnel_unknown", id="tunnel"),
        pytest.param({"version": 1}, "gue_version", id="version"),
        pytest.param({"hlen": 4}, "gue_header_length", id="header length"),
        pytest.param({"flags": 2}, "gue_flags", id="flags"),
        pytest.param({"proto": 1}, "control_type", id="type"),
        pytest.param({"lanes": 0}, "control_field", id="no lanes"),
        pytest.param({"lanes": 5}, "control_field", id="too many lanes"),
        pytest.param({"lanes": 255}, "control_field", id="far too many lanes"),
        pytest.param({"lane": 1}, "control_field", id="lane of one"),
        pytest.param({"lane": 4, "lanes": 4}, "control_field", id="fifth lane"),
        pytest.param({"lane": 255, "lanes": 4}, "control_field", id="lane 255"),
        pytest.param({"lane_flags": 8}, "control_field", id="unknown flag"),
        pytest.param({"lane_flags": 0x8000}, "control_field", id="first flag"),
    ],
)
def test_a_wrong_control_packet_is_dropped_by_name(
    host: Host, end: str, families: Families, changes: dict[str, object], reason: str
) -> None:
    assert host.dropped(end, packet_for(end, families, 50, **changes)) == reason


@OVER
@pytest.mark.parametrize("generation", [0, GENERATION - 1, GENERATION << 16])
def test_a_hello_of_another_generation_is_left_to_the_agent(
    host: Host, families: Families, generation: int
) -> None:
    before = host.state("gateway")
    packet = hello(families, 1 << 62, sport=9, generation=generation)
    assert host.run(GATEWAY, packet) == (PASS, bytes(packet))
    assert host.state("gateway") == before


def test_a_tunnel_that_was_made_anew_believes_no_hello_from_before(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.bpf.tables.tunnel_table._new_generation", lambda: 77)
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel())
    assert host.gateway.generation(TUNNEL) == 77
    host.run(GATEWAY, hello(ALL[0], 1000))
    assert host.gateway.peer(TUNNEL) is None
    host.run(GATEWAY, hello(ALL[0], 1001, generation=77))
    assert peer_of(host).counter == 1001


def test_a_tunnel_whose_counters_have_not_begun_believes_nothing(host: Host) -> None:
    peers, slot = host.map("gateway", "peers"), host.slot("gateway")
    peers.set(slot, bytes(len(peers.get(slot))))
    host.run(GATEWAY, hello(ALL[0], 1000, generation=0))
    assert host.gateway.peer(TUNNEL) is None
    host.gateway.set_tunnel(gateway_tunnel())
    assert host.gateway.generation(TUNNEL) == GENERATION


@OVER
def test_each_type_has_its_own_flags(host: Host, families: Families) -> None:
    assert host.dropped(GATEWAY, hello(families, 50, lane_flags=DIRECT)) == "control_field"
    for counter, flags in enumerate((SPREAD, CHECKSUM), 50):
        packet = acknowledgement(families, counter, lane_flags=flags)
        assert host.dropped(WORKLOAD, packet) == "control_field"
    assert host.dropped(WORKLOAD, acknowledgement(families, 60, lane_flags=DIRECT)) is None


@ENDS
@OVER
def test_every_byte_before_the_tag_is_signed(host: Host, end: str, families: Families) -> None:
    good = bytes(packet_for(end, families, 50, lanes=2))
    for position in range(len(good) - 48, len(good)):
        for bit in (0x01, 0x04):
            changed = bytearray(good)
            changed[position] ^= bit
            assert host.dropped(end, bytes(changed)) is not None, position
    assert host.dropped(end, good) is None


@OVER
def test_each_end_takes_one_type_so_that_nothing_can_be_turned_back(host: Host, families: Families) -> None:
    assert host.dropped(GATEWAY, control(families.nat, families.epic, 50, HELLO_ACK)) == "control_type"
    assert host.dropped(WORKLOAD, control(families.epic, families.node, 50, HELLO)) == "control_type"


@ENDS
@OVER
def test_anything_after_the_message_is_refused(host: Host, end: str, families: Families) -> None:
    packet = packet_for(end, families, 50)
    assert host.dropped(end, packet / Raw(b"more")) == "control_length"


@ENDS
@OVER
def test_a_message_of_the_first_version_is_refused(host: Host, end: str, families: Families) -> None:
    message = bytes(packet_for(end, families, 50)[UDP].payload)
    head = outer(families.nat, families.epic) if end == GATEWAY else outer(families.epic, families.node)
    assert host.dropped(end, head / Raw(message[:32] + message[40:])) == "control_length"


@ENDS
@OVER
def test_both_keys_verify(host: Host, end: str, families: Families) -> None:
    assert host.dropped(end, packet_for(end, families, 50, key=OLD_KEY)) is None
    host.gateway.set_tunnel(gateway_tunnel(keys=(None, KEY)))
    host.workload.set_tunnel(workload_tunnel(families.over, keys=(None, KEY)))
    assert host.dropped(end, packet_for(end, families, 51, key=OLD_KEY)) == "tag_wrong"


@OVER
def test_a_workload_node_hears_at_its_own_address_only(host: Host, families: Families) -> None:
    packet = acknowledgement(families, 50)
    packet[1].dst = str(families.epic)
    assert host.dropped(WORKLOAD, packet) == "tunnel_address"


@ENDS
@OVER
def test_to_somebody_elses_address_it_is_somebody_elses(host: Host, end: str, families: Families) -> None:
    packet = packet_for(end, families, 50)
    packet[1].dst = str(families.stranger)
    before = host.state(end.split(maxsplit=1)[0])
    assert host.run(end, packet) == (PASS, bytes(packet))
    assert host.state(end.split(maxsplit=1)[0]) == before


@OVER
def test_acknowledgements_come_to_the_port_of_their_lane(host: Host, families: Families) -> None:
    for lane in LANES:
        packet = acknowledgement(families, 50, lane=lane, lanes=4, dport=6080 + lane)
        assert host.dropped(WORKLOAD, packet) is None
    far = [host.workload.peer(TUNNEL, lane) for lane in LANES]
    assert [peer.counter for peer in far if peer] == [50] * 4


@FAMILIES
def test_the_kernel_takes_what_the_agent_writes(host: Host, families: Families) -> None:
    sent = wire.Control(
        *(wire.Kind.HELLO, TUNNEL, 60, 1, 2, 1, 3, wire.Flags.SPREAD | wire.Flags.CHECKSUM, GENERATION)
    )
    packet = outer(families.nat, families.epic) / Raw(wire.encode(sent, OLD_KEY))
    assert host.dropped(GATEWAY, packet) is None
    peer = peer_of(host, 1)
    assert (peer.counter, peer.lanes, peer.checksum) == (60, 3, True)


def test_the_agent_reads_what_the_layers_write() -> None:
    message = hello(ALL[0], 9, sent_ns=5, echo_ns=6, lane=2, lanes=3, lane_flags=SPREAD | CHECKSUM)
    assert wire.decode(bytes(message[UDP].payload), KEY) == wire.Control(
        wire.Kind.HELLO, TUNNEL, 9, 5, 6, 2, 3, wire.Flags.SPREAD | wire.Flags.CHECKSUM, GENERATION
    )


@OVER
def test_events_tell_of_first_signs_of_life_and_of_moves(host: Host, families: Families) -> None:
    events = host.gateway.events()
    events.read()
    host.run(GATEWAY, hello(families, 10))
    assert events.read() == []
    host.run(GATEWAY, hello(families, 11, sport=9999))
    host.run(GATEWAY, hello(families, 12, lane=1, lanes=2, sport=7))
    assert select.select([events.fileno()], [], [], 1)[0]
    moved, up = events.read()
    assert moved[:3] == ("moved", TUNNEL, 0)
    assert moved[4:] == ((families.nat, NAT_PORT), (families.nat, 9999))
    assert up[:3] == ("up", TUNNEL, 1)
    assert up[4:] == (None, (families.nat, 7))
    assert abs(time.monotonic_ns() - up.at_ns) < 10**9
    assert events.read() == []
    events.close()


def test_a_dropped_control_packet_is_no_event(host: Host) -> None:
    events = host.gateway.events()
    events.read()
    host.run(GATEWAY, hello(ALL[0], 10, key=WRONG_KEY, sport=1))
    host.run(GATEWAY, hello(ALL[0], 1, sport=1))
    assert events.read() == []
    events.close()


def test_a_changed_inside_address_does_not_move_the_far_end(host: Host) -> None:
    host.gateway.set_tunnel(gateway_tunnel(inside=IPv4Address("100.64.0.9")))
    assert peer_of(host).address == ALL[0].nat
