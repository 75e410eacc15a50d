# SPDX-License-Identifier: Apache-2.0
"""Endpoints of several clusters behind one gateway: each address that Envoy gets means one of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.model.values.addresses import Address
from epic.overlap import Place, envoy_addresses, unmapped_cluster

SMALL = Pools(DEFAULT_POOLS.inside6, IPv4Network("10.0.0.0/26"), IPv6Network("fd00::/122"))
"""So small that first choices meet each other and the endpoints' own addresses."""

clusters = st.sampled_from(["a", "b", "c"])
addresses = st.one_of(
    st.integers(0, 40).map(lambda i: IPv4Address("10.0.0.0") + i),
    st.integers(0, 40).map(lambda i: IPv6Address("fd00::") + i),
)
places = st.builds(Place, clusters, addresses)
many = st.sets(places, max_size=40)


@given(many, st.none() | clusters)
def test_every_address_means_one_endpoint(given_places: set[Place], unmapped: str | None) -> None:
    found = envoy_addresses(given_places, unmapped, SMALL)
    assert found.keys() == given_places
    assert len(set(found.values())) == len(given_places)


@given(many, clusters)
def test_one_cluster_keeps_its_addresses_and_the_others_are_in_the_pool_of_their_family(
    given_places: set[Place], unmapped: str
) -> None:
    for place, address in envoy_addresses(given_places, unmapped, SMALL).items():
        if place.cluster_id == unmapped:
            assert address == place.address
        else:
            pool = SMALL.mapped if place.address.version == 4 else SMALL.mapped6
            assert address in pool
            assert address not in {pool.network_address, pool.broadcast_address}


@given(many, many, clusters)
def test_endpoints_that_come_and_go_move_no_other(
    staying: set[Place], passing: set[Place], unmapped: str
) -> None:
    # In pools of the usual size, where first choices hardly ever meet.
    alone = envoy_addresses(staying, unmapped, DEFAULT_POOLS)
    together = envoy_addresses(staying | passing, unmapped, DEFAULT_POOLS)
    assert {place: together[place] for place in staying} == alone


@given(many)
def test_the_order_in_which_endpoints_are_told_does_not_matter(given_places: set[Place]) -> None:
    forth = envoy_addresses(sorted(given_places, key=str), "a", SMALL)
    back = envoy_addresses(sorted(given_places, key=str, reverse=True), "a", SMALL)
    assert forth == back


def test_mapped_addresses_are_the_same_in_every_version() -> None:
    given_places = [Place("b", IPv4Address("10.1.0.1")), Place("b", IPv6Address("2001:db8::1"))]
    assert [str(a) for a in envoy_addresses(given_places, "a", DEFAULT_POOLS).values()] == [
        "245.54.228.225",
        "fd65:7069:6301:0:661d:e179:7312:4137",
    ]


def test_endpoints_picked_for_their_first_choice_do_not_queue_behind_each_other() -> None:
    pools = Pools(DEFAULT_POOLS.inside6, IPv4Network("10.0.0.0/16"), DEFAULT_POOLS.mapped6)
    window = {IPv4Address("10.0.100.0") + i for i in range(64)}
    own = (Place("b", IPv4Address("172.16.0.0") + i) for i in range(1 << 20))
    picked = [place for place in islice(own, 200_000) if _first(place, pools) in window][:150]
    assert len(picked) == 150
    others = set(envoy_addresses(picked, "a", pools).values()) - window
    near = {address for address in others if address in IPv4Network("10.0.100.0/23")}
    assert len(others) >= 150 - 64
    assert len(near) < 10


def _first(place: Place, pools: Pools) -> Address:
    (address,) = envoy_addresses([place], "a", pools).values()
    return address


def test_a_full_pool_leaves_endpoints_out_rather_than_giving_an_address_twice() -> None:
    tiny = Pools(SMALL.inside6, IPv4Network("10.0.0.0/30"), SMALL.mapped6)
    given_places = {Place("b", IPv4Address("10.9.0.0") + i) for i in range(5)}
    found = envoy_addresses(given_places, "a", tiny)
    assert sorted(map(str, found.values())) == ["10.0.0.1", "10.0.0.2"]


def test_the_cluster_that_was_chosen_stays_chosen_though_it_has_no_endpoints_left() -> None:
    assert unmapped_cluster(None, []) is None
    assert unmapped_cluster(None, ["b", "a"]) == "a"
    assert unmapped_cluster("b", ["a"]) == "b"
    assert unmapped_cluster("b", []) == "b"
    assert unmapped_cluster("", ["a"]) == "", "a cluster may have no name"
