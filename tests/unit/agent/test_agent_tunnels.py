"""The workload end of tunnels: the REST API's list, the plan, and the routes of replies."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from agent_samples import INSIDE, KEY, A, B, workload_tunnel

from epic.agent.netlink import HostRoute, NextHop
from epic.agent.tunnels import Observed, Plan, leaving, merge, parse, plan, routes

EPIC, ROUTER = IPv4Address("172.30.11.2"), IPv4Address("192.168.50.1")
ROUTE = HostRoute(INSIDE, "up0", ROUTER, 1452)
NOTHING = Observed({}, {}, frozenset())
DONE = Observed({7: workload_tunnel(A)}, {(INSIDE, A): 7}, frozenset({ROUTE}))
LISTED = {
    "id": 7,
    "gateway": "shop.web",
    "service": 3,
    "inside-address": "100.64.0.1",
    "epic-address": "172.30.11.2",
    "epic-port": 6080,
    "keys": [{"epoch": 1, "secret": KEY.hex()}],
    "endpoints": ["192.168.50.11"],
}


def test_the_list_is_read() -> None:
    assert parse({"tunnels": [LISTED]}) == (workload_tunnel(A),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"id": 0}, "tunnels.0.id", id="number"),
        pytest.param({"inside-address": "here"}, "inside-address", id="address"),
        pytest.param({"keys": [{"epoch": 1, "secret": "zz"}]}, "hexadecimal", id="digits"),
        pytest.param({"keys": [{"epoch": 1, "secret": "00"}]}, "16", id="short key"),
    ],
)
def test_a_bad_list_is_refused_without_showing_keys(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse({"tunnels": [{**LISTED, **change}]})
    assert KEY.hex() not in str(caught.value)


def test_a_new_tunnel_gets_everything() -> None:
    assert plan({7: workload_tunnel(A)}, [ROUTE], NOTHING) == Plan(
        (), (), (), (workload_tunnel(A),), (((INSIDE, A), 7),), (ROUTE,)
    )


def test_nothing_is_done_when_all_is_there() -> None:
    assert plan({7: workload_tunnel(A)}, [ROUTE], DONE) == Plan((), (), (), (), (), ())


def test_all_of_a_tunnel_that_is_gone_goes() -> None:
    assert plan({}, [], DONE) == Plan((ROUTE,), ((INSIDE, A),), (7,), (), (), ())


def test_what_carries_an_endpoint_that_is_leaving_stays_for_now() -> None:
    assert plan({}, [], DONE, kept=[(INSIDE, A)]) == Plan((), (), (), (), (), ())


def test_endpoints_leave_since_they_were_listed_last() -> None:
    since = leaving({7: workload_tunnel(B)}, DONE, {}, 100)
    assert since == {(INSIDE, A): 100}
    assert leaving({7: workload_tunnel(B)}, DONE, since, 105) == {(INSIDE, A): 100}
    assert leaving({7: workload_tunnel(A)}, DONE, since, 105) == {}


def test_a_changed_next_hop_changes_the_route() -> None:
    other = HostRoute(INSIDE, "up0", EPIC, 1452)
    assert plan({7: workload_tunnel(A)}, [other], DONE).set_routes == (other,)


def test_replies_take_the_way_to_the_epic_node() -> None:
    tunnels = {7: workload_tunnel(A)}
    assert list(routes(tunnels, {EPIC: NextHop("up0", ROUTER)}, "up0", 1500)) == [ROUTE]
    assert list(routes(tunnels, {EPIC: NextHop("other", ROUTER)}, "up0", 1500)) == []
    assert list(routes(tunnels, {}, "up0", 1500)) == []


def test_tunnels_of_two_clusters_must_not_collide() -> None:
    mine, theirs = workload_tunnel(A), workload_tunnel(B)
    other = workload_tunnel(B, id_=9, inside=IPv4Address("100.64.0.9"))
    tunnels, complaints = merge([(mine,), (theirs, other)])
    assert tunnels == {7: mine, 9: other}
    assert len(complaints) == 1
    assert merge([(mine,), (mine,)]) == ({7: mine}, [])
