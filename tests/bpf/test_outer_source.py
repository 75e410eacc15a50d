# SPDX-License-Identifier: Apache-2.0
"""Data comes from where the far end is known to be, for its tag does not cover the outer addresses."""

from __future__ import annotations

import pytest
from frames import ALL, FAMILIES, NAT_PORT, TUNNEL, Families, acknowledgement, hello
from gue_scapy import SPREAD
from host import GATEWAY, GATEWAY_XDP, WORKLOAD, WORKLOAD_XDP, Host, gateway_tunnel, workload_tunnel
from receiving import ENDS, OVER, frame_of
from scapy.layers.inet import UDP
from scapy.packet import Packet
from testrun import XDP_PASS, TakenOut

from epic.bpf.dataplane import Endpoint

pytestmark = pytest.mark.root

OPEN = [families for families in ALL if families.over == families.inner]
"""Packets that any kernel takes out of the tunnel."""
SAME = pytest.mark.parametrize("families", OPEN, ids=str)


def data_from(end: str, families: Families, source: object = None, port: int | None = None) -> Packet:
    """A good data packet to that end, from elsewhere."""
    frame = frame_of(end, families)
    known = families.nat if end == GATEWAY else families.epic
    frame[1].src = str(source or known)
    frame[UDP].sport = port if port is not None else NAT_PORT if end == GATEWAY else 6080
    return frame


@ENDS
@FAMILIES
def test_a_captured_packet_from_another_address_is_dropped(host: Host, end: str, families: Families) -> None:
    assert host.dropped(end, data_from(end, families, families.stranger)) == "outer_source"


@FAMILIES
def test_a_captured_packet_from_another_port_is_dropped(host: Host, families: Families) -> None:
    for port in (0, 6080, NAT_PORT + 1):
        assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=port)) == "outer_source", port


@SAME
def test_an_epic_node_may_send_from_any_port_of_its_address(host: Host, families: Families) -> None:
    for port in (6080, 6083, 49152, 65535):
        assert host.dropped(WORKLOAD, data_from(WORKLOAD, families, port=port)) is None, port


@ENDS
@FAMILIES
def test_only_what_has_a_good_tag_counts_as_from_elsewhere(host: Host, end: str, families: Families) -> None:
    frame = frame_of(end, families, tag=bytes(8))
    frame[1].src = str(families.stranger)
    assert host.dropped(end, frame) == "tag_wrong"


@SAME
def test_a_data_packet_never_moves_the_far_end(host: Host, families: Families) -> None:
    """After a NAT has given another port nothing comes through until a hello shows it."""
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=4444)) == "outer_source"
    assert host.dropped(GATEWAY, hello(families, 1000, sport=4444)) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=4444)) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families)) == "outer_source"


@FAMILIES
def test_before_the_first_hello_nothing_is_taken(host: Host, families: Families) -> None:
    host.gateway.delete_tunnel(TUNNEL)
    host.gateway.set_tunnel(gateway_tunnel())
    host.gateway.set_endpoint(families.inside, families.endpoint, Endpoint(TUNNEL))
    assert host.dropped(GATEWAY, data_from(GATEWAY, families)) == "outer_source"
    nowhere = "0.0.0.0" if families.over == 4 else "::"  # noqa: S104 (not bound to)
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, nowhere, 0)) == "outer_source"


@SAME
def test_each_lane_has_a_port_of_its_own(host: Host, families: Families) -> None:
    for lane in (0, 1, 3):
        assert host.dropped(GATEWAY, hello(families, 50, lane=lane, lanes=4, sport=5000 + lane)) is None
    for port in (5000, 5001, 5003):
        assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=port)) is None, port
    for port in (5002, NAT_PORT):
        assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=port)) == "outer_source", port


@SAME
def test_lanes_that_the_far_end_has_no_more_are_not_taken_from(host: Host, families: Families) -> None:
    host.run(GATEWAY, hello(families, 50, lane=1, lanes=2, sport=5001))
    host.run(GATEWAY, hello(families, 60))
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=5001)) == "outer_source"
    assert host.dropped(GATEWAY, data_from(GATEWAY, families)) is None


@SAME
def test_lanes_may_come_from_different_addresses(host: Host, families: Families) -> None:
    moved = hello(families, 50, lane=1, lanes=2, sport=5001)
    moved[1].src = str(families.stranger)
    assert host.dropped(GATEWAY, moved) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, families.stranger, 5001)) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families)) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, families.stranger)) == "outer_source"
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=5001)) == "outer_source"


@SAME
def test_who_spreads_may_send_from_any_port_of_its_address(host: Host, families: Families) -> None:
    host.gateway.set_tunnel(gateway_tunnel(remote=families.nat))
    assert host.dropped(GATEWAY, hello(families, 50, lane_flags=SPREAD, sport=6080)) is None
    for port in (6080, 49152, 65535):
        assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=port)) is None, port
    elsewhere = data_from(GATEWAY, families, families.stranger, 6080)
    assert host.dropped(GATEWAY, elsewhere) == "outer_source"
    assert host.dropped(GATEWAY, hello(families, 51, sport=6080)) is None
    assert host.dropped(GATEWAY, data_from(GATEWAY, families, port=49152)) == "outer_source"


@SAME
def test_the_declared_address_of_the_epic_node_may_change(host: Host, families: Families) -> None:
    host.workload.set_tunnel(workload_tunnel(families.over, remote=families.epic_second))
    assert host.dropped(WORKLOAD, data_from(WORKLOAD, families)) == "outer_source"
    assert host.dropped(WORKLOAD, data_from(WORKLOAD, families, families.epic_second)) is None


@OVER
def test_an_answer_comes_from_where_hellos_go_to(host: Host, families: Families) -> None:
    packet = acknowledgement(families, 5)
    packet[1].src = str(families.stranger)
    assert host.dropped(WORKLOAD, packet) == "outer_source"
    assert host.dropped(WORKLOAD, acknowledgement(families, 5)) is None


@FAMILIES
def test_what_comes_from_elsewhere_is_left_to_the_filter(host: Host, families: Families) -> None:
    for program, end in ((GATEWAY_XDP, GATEWAY), (WORKLOAD_XDP, WORKLOAD)):
        frame = data_from(end, families, families.stranger)
        assert host.take_out(program, frame) == TakenOut(XDP_PASS, bytes(frame), b"")
