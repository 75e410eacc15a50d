# SPDX-License-Identifier: Apache-2.0
"""Endpoints behind tunnels that are down are unhealthy for Envoy; those without tunnels it is not told.

- A tunnel is down when no hello was believed for a while; one that is new has that time, too.
- Only endpoints behind it are marked, and those without left out; all else stays as it was sent.
- Only what changed is looked at, and others have their turn while there is much of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

import pytest
from agent_samples import WEB, A, B, C
from envoy.config.core.v3.health_check_pb2 import UNHEALTHY
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import CLUSTER, LOAD_ASSIGNMENT, Snapshot, Versioned, versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.envoy.assignments import Assignment, assignments
from epic.agent.gateway.envoy.endpoint_health import EndpointMarks, TunnelLiveness, Unreached
from epic.proto.epic_pb2 import TunnelStatus


def assignment(*hosts: str) -> Versioned:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": 80}}}} for h in hosts
    ]
    data = {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}
    return versioned(ParseDict(data, ClusterLoadAssignment()))


class Site:
    """A gateway's resources as the agent reads them, and which of its endpoints are not reached."""

    def __init__(self, **clusters: Versioned) -> None:
        self.cache = ResourceCache()
        self.unreached: set[str] = set()
        self.absent: set[str] = set()
        self.asked: list[str] = []
        self.marks = EndpointMarks(self._find_unreached)
        self.take(**clusters)

    def take(self, **clusters: Versioned) -> None:
        self.cache.update(LOAD_ASSIGNMENT, {f"{WEB}/{name}": r for name, r in clusters.items()})

    @property
    def part(self) -> Snapshot:
        return self.cache.parts[WEB]

    async def mark(self, *touched: str) -> Mapping[str, Versioned]:
        self.asked.clear()
        names = frozenset(f"{WEB}/{address}" for address in touched)
        return (await self.marks.mark(WEB, self.part, names))[LOAD_ASSIGNMENT]

    def _find_unreached(self, names: Iterable[str]) -> Unreached:
        addresses = [name.removeprefix(f"{WEB}/") for name in names]
        self.asked += addresses
        down, none = (
            frozenset(f"{WEB}/{a}" for a in addresses if a in of) for of in (self.unreached, self.absent)
        )
        return Unreached(down, none)

    def told(self, *addresses: str) -> set[str]:
        names = frozenset(f"{WEB}/{address}" for address in addresses)
        return {name.removeprefix(f"{WEB}/") for name in self.marks.told(WEB, names)}


def health(resource: Versioned) -> list[int]:
    found = ClusterLoadAssignment.FromString(resource.body.value)
    return [endpoint.health_status for endpoint in found.endpoints[0].lb_endpoints]


def named(resource: Versioned) -> list[str]:
    found = ClusterLoadAssignment.FromString(resource.body.value)
    return [e.endpoint.address.socket_address.address for e in found.endpoints[0].lb_endpoints]


async def test_only_what_is_behind_a_dead_tunnel_is_unhealthy() -> None:
    site = Site(c=assignment(str(A), str(B), "name.example"), d=assignment(str(B)))
    site.unreached = {str(A), "name.example"}
    marked = await site.mark()
    assert health(marked["c"]) == [UNHEALTHY, 0, 0]
    sent = site.part[LOAD_ASSIGNMENT]
    assert marked["c"].version != sent["c"].version
    assert marked["d"] is sent["d"]
    assert sent["c"].body == assignment(str(A), str(B), "name.example").body


async def test_what_no_tunnel_reaches_is_left_out() -> None:
    site = Site(c=assignment(str(A), "name.example", str(C), str(B)), d=assignment(str(C)))
    site.absent, site.unreached = {str(A), str(C), "name.example"}, {str(B)}
    marked = await site.mark()
    assert named(marked["c"]) == ["name.example", str(B)]
    assert health(marked["c"]) == [0, UNHEALTHY]
    assert named(marked["d"]) == []
    assert site.told(str(A), str(B), str(C)) == {str(B)}
    site.absent = {str(A)}
    marked = await site.mark(str(C))
    assert named(marked["c"]) == ["name.example", str(C), str(B)]
    assert marked["d"] is site.part[LOAD_ASSIGNMENT]["d"]
    assert site.told(str(A), str(B), str(C)) == {str(B), str(C)}


async def test_many_are_left_out_wherever_they_are() -> None:
    many = [str(IPv4Address("10.0.0.0") + number) for number in range(5000)]
    site = Site(c=assignment(*many))
    site.absent = set(many[::2])
    assert named((await site.mark())["c"]) == many[1::2]
    site.absent = set(many[:4999])
    assert named((await site.mark(*many))["c"]) == many[4999:]


def test_of_a_gateway_that_was_never_told_anything_nothing_is_told() -> None:
    assert Site(c=assignment(str(A))).told(str(A)) == set()


async def test_an_address_is_known_however_it_is_written() -> None:
    site = Site(c=assignment("fd00:0:0::1", "FD00::2", "fd00::3"))
    site.unreached = {"fd00::1", "fd00::2"}
    assert health((await site.mark())["c"]) == [UNHEALTHY, UNHEALTHY, 0]


async def test_what_did_not_change_is_not_looked_at_again() -> None:
    site = Site(c=assignment(str(A)), d=assignment(str(B)))
    site.unreached = {str(B)}
    first = await site.mark()
    again = await site.mark()
    assert site.asked == []
    assert [again[name] is first[name] for name in "cd"] == [True, True]


async def test_of_an_endpoint_whose_reach_changed_those_assignments_are_read_that_name_it() -> None:
    site = Site(c=assignment(str(A), str(B)), d=assignment(str(B), str(C)))
    first = await site.mark()
    site.unreached = {str(A)}
    found = await site.mark(str(A))
    assert site.asked == [str(A)]
    assert health(found["c"]) == [UNHEALTHY, 0]
    assert found["d"] is first["d"]
    site.unreached = set()
    assert health((await site.mark(str(A)))["c"]) == [0, 0]


async def test_of_an_assignment_that_changed_only_new_endpoints_are_asked_about() -> None:
    site = Site(c=assignment(str(A), str(B)))
    site.unreached = {str(A), str(C)}
    await site.mark()
    site.take(c=assignment(str(C), str(B), str(A)))
    assert health((await site.mark())["c"]) == [UNHEALTHY, 0, UNHEALTHY]
    assert site.asked == [str(C)]
    site.take(c=assignment(str(B)))
    assert health((await site.mark())["c"]) == [0]


async def test_all_are_looked_at_when_any_may_be_reached_otherwise() -> None:
    site = Site(c=assignment(str(A)), d=assignment(str(B)))
    await site.mark()
    site.unreached = {str(B)}
    found = (await site.marks.mark(WEB, site.part, None))[LOAD_ASSIGNMENT]
    assert (health(found["c"]), health(found["d"])) == ([0], [UNHEALTHY])


async def test_others_have_their_turn_while_many_are_looked_at_and_who_is_interrupted_begins_anew() -> None:
    many = [str(IPv4Address("10.0.0.0") + number) for number in range(5000)]
    site = Site(c=assignment(*many))
    marking = asyncio.create_task(site.mark())
    await asyncio.sleep(0)
    assert 0 < len(site.asked) < len(many)
    marking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await marking
    site.unreached = {many[0]}
    assert health((await site.mark())["c"]) == [UNHEALTHY] + [0] * (len(many) - 1)


def test_a_large_assignment_is_read_in_parts_and_equal_names_are_kept_once() -> None:
    many = [str(IPv4Address("10.0.0.0") + number) for number in range(5000)]
    sent = {f"{WEB}/{name}": assignment(*many) for name in "cd"}
    cache = ResourceCache()
    assert len(list(cache.read_ahead(LOAD_ASSIGNMENT, sent))) >= 10
    cache.update(LOAD_ASSIGNMENT, sent)
    found = assignments(cache.parts[WEB])
    assert found["c"].names == {f"{WEB}/{address}" for address in many}
    assert {id(name) for name in found["c"].names} == {id(name) for name in found["d"].names}


def test_other_resources_are_no_assignments() -> None:
    cache = ResourceCache()
    cache.update(CLUSTER, {f"{WEB}/c": assignment()})
    assert assignments(cache.parts[WEB]) == {}
    assert not isinstance(cache.parts[WEB][CLUSTER]["c"], Assignment)


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
