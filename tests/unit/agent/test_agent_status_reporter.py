# SPDX-License-Identifier: Apache-2.0
"""What a workload node tells of its tunnels, and what happens to tunnels at their EPIC end."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from agent_samples import A, workload_tunnel

from epic.agent.tunnel.events import find_silent, place, read_events
from epic.agent.tunnel.health import Health
from epic.agent.workload.control.reports import ReportedList, StatusSample, parts
from epic.bpf.dataplane import TunnelCounters, TunnelEvent
from epic.proto.epic_pb2 import TunnelStatus


def test_a_node_tells_each_server_only_of_the_tunnels_that_it_listed() -> None:
    health = Health()
    health.sent(1, 100)
    health.answered(1, 100.002, 0.002)
    tunnels = {id_: workload_tunnel(A, id_=id_) for id_ in (7, 8)}
    counters = {7: TunnelCounters(1, 2, 3, 4)}
    seen = StatusSample(tunnels, counters, {"tag_wrong": 2, "too_big": 0}, {7: health}, 105)
    (part,) = parts(seen, ReportedList(frozenset({7, 9}), 41))
    (told,) = part.tunnels
    assert (part.applied, dict(part.drops)) == (41, {"tag_wrong": 2})
    assert (told.id, list(told.epochs), told.signing_epoch, told.loss) == (7, [1], 1, 0)
    assert (told.rx_packets, told.rx_bytes, told.tx_packets, told.tx_bytes) == (1, 2, 3, 4)
    assert told.hello_age == pytest.approx(4.998)
    trip = told.round_trip
    assert [trip.last, trip.min, trip.avg] == pytest.approx([0.002] * 3)
    ((other,),) = [part.tunnels for part in parts(seen, ReportedList(frozenset({8}), 0))]
    assert (other.id, other.hello_age, other.HasField("loss"), other.HasField("round_trip")) == (
        8,
        -1,
        False,
        False,
    )


def test_a_report_of_many_tunnels_is_told_in_parts() -> None:
    tunnels = {id_: workload_tunnel(A, id_=id_) for id_ in range(1, 1202)}
    seen = StatusSample(tunnels, {}, {"tag_wrong": 2}, {}, 105)
    found = list(parts(seen, ReportedList(frozenset(tunnels), 41)))
    assert [len(part.tunnels) for part in found] == [500, 500, 201]
    assert [(part.applied, len(part.drops)) for part in found] == [(41, 1), (0, 0), (0, 0)]


HOME, AWAY = (IPv4Address("198.51.100.1"), 6080), (IPv6Address("2001:db8::1"), 7000)


def texts(*told: TunnelEvent, alive: tuple[int, ...] = ()) -> list[str]:
    return [event.text for event in read_events(told, alive)]


def test_what_the_programs_tell_is_said_with_places() -> None:
    assert texts(TunnelEvent("up", 7, 0, 1, None, HOME)) == [
        "tunnel 7 is up: hellos come from 198.51.100.1:6080"
    ]
    assert texts(TunnelEvent("moved", 7, 0, 1, HOME, AWAY), TunnelEvent("moved", 7, 2, 1, AWAY, HOME)) == [
        "tunnel 7 moved from 198.51.100.1:6080 to [2001:db8::1]:7000",
        "tunnel 7 (lane 2) moved from [2001:db8::1]:7000 to 198.51.100.1:6080",
    ]
    assert place("fe80::1", 1) == "[fe80::1]:1"


def test_further_lanes_do_not_make_a_tunnel_come_up_again() -> None:
    lanes = [TunnelEvent("up", 7, lane, 1, None, HOME) for lane in range(4)]
    assert len(texts(*lanes)) == 1
    assert texts(*lanes, alive=(7,)) == []


def test_a_tunnel_goes_down_with_time() -> None:
    def status(age: float) -> TunnelStatus:
        return TunnelStatus(id=7, hello_age=age, observed_address="198.51.100.1", observed_port=6080)

    assert find_silent((), [status(-1)]) == (set(), [])
    assert find_silent((), [status(5)]) == ({7}, [])
    now, (down,) = find_silent({7}, [status(17)])
    assert (now, down.text) == (set(), "tunnel 7 is down: no more hellos from 198.51.100.1:6080")
    assert find_silent(now, [status(20)]) == (set(), [])
    # One that was removed is not down.
    assert find_silent({7}, []) == (set(), [])
