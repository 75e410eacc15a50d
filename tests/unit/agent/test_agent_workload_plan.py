# SPDX-License-Identifier: Apache-2.0
"""The workload end of tunnels: the REST API's list, the plan, and the routes of replies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from agent_samples import INSIDE, INSIDE6, KEY, VIA, A, B, C, workload_tunnel

from epic.agent.netlink.objects import HostRoute, ResolvedRoute
from epic.agent.settings import WorkloadUnderlay
from epic.agent.workload.plan import (
    DUMMIES,
    DesiredState,
    Observed,
    Plan,
    WorkloadTunnel,
    endpoints,
    ends,
    leaving,
    merge,
    only_own_removals,
    plan,
    read,
    routes,
)
from epic.bpf.dataplane import Address, Endpoint, Route, Tunnel

EPIC, EPIC6 = IPv4Address("172.30.11.2"), IPv6Address("2001:db8::2")
ROUTER, LOCAL = IPv4Address("192.168.50.1"), IPv4Address("192.168.50.11")
WAY = ResolvedRoute("up0", ROUTER, LOCAL)
ROUTE = HostRoute(INSIDE, "up0", DUMMIES[4], 1452)
UNDERLAY = WorkloadUnderlay(interface="up0")
LISTED = {
    "id": 7,
    "gateway": "shop.web",
    "service": 3,
    "inside-address": "100.64.0.1",
    "inside-address6": "fd65:7069:6300::6440:1",
    "epic-address": "172.30.11.2",
    "epic-port": 6080,
    "keys": [{"epoch": 1, "secret": KEY.hex()}],
    "signing-epoch": 1,
    "endpoints": ["192.168.50.11"],
}


def end(
    tunnel: WorkloadTunnel,
    way: ResolvedRoute = WAY,
    underlay: WorkloadUnderlay = UNDERLAY,
    direct: Collection[int] = (),
) -> Tunnel:
    return ends([tunnel], {tunnel.epic_address: way}, underlay, direct)[tunnel.id]


def wanted(
    *tunnels: WorkloadTunnel, way: ResolvedRoute | None = WAY, pods: Mapping[Address, str] | None = None
) -> DesiredState:
    found = {t.epic_address: way for t in tunnels if way is not None}
    our_ends = ends(tunnels, found, UNDERLAY, ())
    return DesiredState(
        tunnels={t.id: t for t in tunnels},
        ends=our_ends,
        endpoints=endpoints(tunnels, pods or {}),
        routes=frozenset(routes(tunnels, our_ends, {"up0": 1500})),
    )


NOTHING = Observed({}, {}, frozenset())
NO_PLAN = Plan(frozenset(), frozenset(), (), (), {}, ())
DONE = Observed({7: end(workload_tunnel(A))}, {(INSIDE, A): VIA}, frozenset({ROUTE}))


def test_the_list_is_read() -> None:
    assert read(LISTED) == workload_tunnel(A)


def test_both_families_are_read() -> None:
    change = {
        "epic-address": str(EPIC6),
        "endpoints": [str(C), "192.168.50.11"],
    }
    found = read({**LISTED, **change})
    assert found == workload_tunnel(A, C, epic=EPIC6)
    assert set(found.pairs()) == {(INSIDE, A), (INSIDE6, C)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"id": 0}, "tunnel 0 is not as expected at id", id="number"),
        pytest.param({"inside-address6": None}, "tunnel 7 .* at inside-address6", id="no IPv6 address"),
        pytest.param({"inside-address": "here"}, "tunnel 7 .* at inside-address", id="address"),
        pytest.param({"keys": [{"epoch": 1, "secret": "zz"}]}, "hexadecimal", id="digits"),
        pytest.param({"keys": [{"epoch": 1, "secret": "00"}]}, "16", id="short key"),
    ],
)
def test_a_bad_list_is_refused_without_showing_keys(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read({**LISTED, **change})
    assert KEY.hex() not in str(caught.value)


def test_a_new_tunnel_gets_everything() -> None:
    assert plan(wanted(workload_tunnel(A)), NOTHING) == replace(
        NO_PLAN,
        set_tunnels=(end(workload_tunnel(A)),),
        set_endpoints={(INSIDE, A): VIA},
        set_routes=(ROUTE,),
    )


def test_nothing_is_done_when_all_is_there() -> None:
    assert plan(wanted(workload_tunnel(A)), DONE) == NO_PLAN


def test_all_of_a_tunnel_that_is_gone_goes() -> None:
    assert plan(wanted(), DONE) == replace(
        NO_PLAN,
        remove_routes=frozenset({ROUTE}),
        delete_endpoints=frozenset({(INSIDE, A)}),
        delete_tunnels=(7,),
    )


def test_what_carries_an_endpoint_that_is_leaving_stays_for_now() -> None:
    assert plan(wanted(), DONE, kept=[(INSIDE, A)]) == NO_PLAN


def test_a_tunnel_stays_as_it_was_while_there_is_no_way() -> None:
    assert plan(wanted(workload_tunnel(A), way=None), DONE) == NO_PLAN


def test_endpoints_leave_since_they_were_listed_last() -> None:
    since = leaving(wanted(workload_tunnel(B)), DONE, {}, 100)
    assert since == {(INSIDE, A): 100}
    assert leaving(wanted(workload_tunnel(B)), DONE, since, 105) == {(INSIDE, A): 100}
    assert leaving(wanted(workload_tunnel(A)), DONE, since, 105) == {}


def test_who_does_not_know_the_whole_leaves_what_an_earlier_agent_made() -> None:
    nothing = wanted()
    earlier = replace(DONE, tunnels=dict.fromkeys(DONE.tunnels))
    assert only_own_removals(plan(nothing, earlier), earlier) == NO_PLAN
    assert only_own_removals(plan(nothing, DONE), DONE) == plan(nothing, DONE) != NO_PLAN


def test_another_way_changes_the_tunnel_and_not_the_route() -> None:
    other = ResolvedRoute("up0", None, IPv4Address("192.168.50.77"))
    found = plan(wanted(workload_tunnel(A), way=other), DONE)
    assert found == replace(NO_PLAN, set_tunnels=(end(workload_tunnel(A), other),))


def test_a_route_by_another_next_hop_is_replaced() -> None:
    old = replace(DONE, routes=frozenset({HostRoute(INSIDE, "up0", ROUTER, 1452)}))
    assert plan(wanted(workload_tunnel(A)), old) == replace(NO_PLAN, set_routes=(ROUTE,))


def test_the_way_tells_source_interface_and_next_hop() -> None:
    found = end(workload_tunnel(A))
    assert (found.local, found.underlay, found.interface) == (LOCAL, "up0", None)
    assert found.route == Route(EPIC, "up0", ROUTER)
    assert end(workload_tunnel(A), WAY._replace(single=False)).route is None


def test_settings_show_in_the_tunnel() -> None:
    settings = WorkloadUnderlay(interface="up0", lanes=4, spread=True, checksum=True)
    found = end(workload_tunnel(A), underlay=settings)
    assert (found.lanes, found.spread, found.checksum) == (4, False, True)
    assert end(workload_tunnel(A), underlay=settings, direct=[7]).spread
    assert not end(workload_tunnel(A), direct=[7]).spread


def test_replies_of_each_family_fit_into_the_tunnel() -> None:
    tunnel = workload_tunnel(A, C, epic=EPIC6)
    ends_by_id = {7: end(tunnel, ResolvedRoute("up0", None, IPv6Address("2001:db8::1")))}
    assert set(routes([tunnel], ends_by_id, {"up0": 1500})) == {
        HostRoute(INSIDE, "up0", DUMMIES[4], 1432),
        HostRoute(INSIDE6, "up0", DUMMIES[6], 1432),
    }
    assert set(routes([tunnel], ends_by_id, {})) == set()


def test_pods_are_delivered_to_by_their_interface() -> None:
    tunnel = workload_tunnel(A, B)
    assert endpoints([tunnel], {A: "veth1"}) == {
        (INSIDE, A): Endpoint(7, interface="veth1"),
        (INSIDE, B): VIA,
    }


def test_tunnels_of_two_clusters_must_not_collide() -> None:
    mine, theirs = workload_tunnel(A), workload_tunnel(B)
    other = workload_tunnel(B, id_=9, inside=IPv4Address("100.64.0.9"))
    tunnels, complaints = merge([(mine,), (theirs, other)])
    assert tunnels == {7: mine, 9: other}
    assert len(complaints) == 1
    assert merge([(mine,), (mine,)]) == ({7: mine}, [])
