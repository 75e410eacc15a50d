# SPDX-License-Identifier: Apache-2.0
"""Endpoints without tunnels, or behind tunnels that are down, are unhealthy for Envoy.

- A tunnel is down when no hello was believed for a while; one that is new has that time, too.
- Only endpoints behind it are marked; all else stays as the control plane sent it.
"""

from __future__ import annotations

from agent_samples import A, B
from envoy.config.core.v3.health_check_pb2 import UNHEALTHY
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, LOAD_ASSIGNMENT, Versioned, versioned
from epic.agent.gateway.envoy.endpoint_health import TunnelLiveness, mark
from epic.proto.epic_pb2 import TunnelStatus


def assignment(*hosts: str) -> Versioned:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": 80}}}} for h in hosts
    ]
    data = {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}
    return versioned(ParseDict(data, ClusterLoadAssignment()))


def test_only_what_is_behind_a_dead_tunnel_is_unhealthy() -> None:
    part = {
        CLUSTER: {},
        LOAD_ASSIGNMENT: {"c": assignment(str(A), str(B), "name.example"), "d": assignment(str(B))},
    }
    marked = mark(part, lambda address: address in {str(A), "name.example"})
    found = ClusterLoadAssignment.FromString(marked[LOAD_ASSIGNMENT]["c"].body.value)
    states = [endpoint.health_status for endpoint in found.endpoints[0].lb_endpoints]
    assert states == [UNHEALTHY, 0, 0]
    assert marked[LOAD_ASSIGNMENT]["c"].version != part[LOAD_ASSIGNMENT]["c"].version
    assert marked[LOAD_ASSIGNMENT]["d"] is part[LOAD_ASSIGNMENT]["d"]
    assert part[LOAD_ASSIGNMENT]["c"] == assignment(str(A), str(B), "name.example")


def test_a_silent_tunnel_goes_down_and_comes_back_with_a_hello() -> None:
    liveness = TunnelLiveness()
    assert not liveness.look([TunnelStatus(id=7, hello_age=15)], 100)
    assert liveness.look([TunnelStatus(id=7, hello_age=17), TunnelStatus(id=8, hello_age=1)], 102) == {7}
    assert liveness.down == {7}
    assert not liveness.hear([8])
    assert liveness.hear([7]) == {7}
    assert liveness.down == frozenset()


def test_a_tunnel_that_was_never_heard_of_has_time_to_come_up() -> None:
    liveness = TunnelLiveness()
    never = [TunnelStatus(id=7, hello_age=-1)]
    assert not liveness.look(never, 100)
    assert not liveness.look(never, 115)
    assert liveness.look(never, 117) == {7}


def test_an_agent_that_starts_again_knows_at_once_which_tunnels_are_down() -> None:
    assert TunnelLiveness().look([TunnelStatus(id=7, hello_age=60)], 0) == {7}


def test_a_tunnel_that_is_gone_is_not_down() -> None:
    liveness = TunnelLiveness()
    liveness.look([TunnelStatus(id=7, hello_age=60)], 0)
    assert liveness.look([], 5) == {7}
    assert liveness.down == frozenset()
