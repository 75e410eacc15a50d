# SPDX-License-Identifier: Apache-2.0
"""Endpoints that are wanted no more stay until their Envoys let go of them; that bounds what may come.

- Their time counts from when the Envoy was not told them any more, whatever it is told afterwards.
- A gateway has no more entries than its endpoints and a bounded number that leave; there is room for all.
- What is held back is as much of what is new as leaves too many, and only of the same gateway.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address

from agent_samples import INSIDE, VIA, WEB
from hypothesis import given
from hypothesis import strategies as st

from epic.agent.gateway.plans.dirty import Difference
from epic.agent.gateway.plans.leaving import Leaving, held_back, most_leaving
from epic.agent.tunnel.endpoints import EndpointKey
from epic.model.values.naming import NODE_ENDPOINTS

ROOM_FOR_LEAVING = NODE_ENDPOINTS // 7
OTHER, SECOND = IPv4Address("100.64.9.9"), IPv4Address("100.64.9.10")
GATEWAYS = {INSIDE: WEB, OTHER: "bank.other"}


def keys(count: int, first: int = 0, inside: IPv4Address = INSIDE) -> list[EndpointKey]:
    return [(inside, IPv4Address("10.0.0.0") + first + number) for number in range(count)]


def changes(leaving: Collection[EndpointKey], new: Collection[EndpointKey]) -> dict[EndpointKey, Difference]:
    gone = {key: Difference(VIA, None) for key in leaving}
    return gone | {key: Difference(None, VIA) for key in new}


def untold(_: str, __: Collection[EndpointKey]) -> frozenset[EndpointKey]:
    return frozenset()


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=1000))
def test_what_may_be_leaving_of_all_gateways_has_room(counts: list[int]) -> None:
    total = sum(counts)
    assert sum(most_leaving(len(counts), count, total) for count in counts) <= ROOM_FOR_LEAVING


def test_all_endpoints_of_a_node_with_few_may_be_replaced_at_once() -> None:
    counts = {WEB: 1000, "bank.other": 3000}
    assert held_back(changes(keys(1000), keys(1000, 5000)), GATEWAYS, counts) == frozenset()


def test_as_many_new_ones_are_held_back_as_leave_too_many() -> None:
    counts = {WEB: 20_000, "bank.other": 80_000}
    most = most_leaving(2, 20_000, 100_000)
    leaving, new = keys(most + 300), keys(1000, 50_000)
    held = held_back(changes(leaving, new), GATEWAYS, counts)
    assert len(held) == 300
    assert held < set(new)


def test_those_of_other_accounts_are_not_held_back() -> None:
    counts = {WEB: 20_000, "bank.other": 80_000}
    others = keys(1000, inside=OTHER)
    found = changes(keys(20_000), [*keys(5, 50_000), *others])
    assert held_back(found, GATEWAYS, counts) == set(keys(5, 50_000))


def test_what_one_gateway_of_an_account_loses_holds_back_what_is_new_of_another() -> None:
    gateways, counts = GATEWAYS | {SECOND: "shop.second"}, {"shop.second": 20_000, "bank.other": 80_000}
    most = most_leaving(2, 20_000, 100_000)
    found = changes(keys(most + 300), [*keys(1000, inside=SECOND), *keys(1000, inside=OTHER)])
    held = held_back(found, gateways, counts)
    assert len(held) == 300
    assert held < set(keys(1000, inside=SECOND))


def test_the_gateway_that_loses_endpoints_waits_before_others_of_its_account() -> None:
    gateways, counts = (
        GATEWAYS | {SECOND: "shop.second"},
        {WEB: 1000, "shop.second": 20_000, "bank.other": 79_000},
    )
    most = most_leaving(2, 21_000, 100_000)
    found = changes(keys(most + 300), [*keys(1000, inside=SECOND), *keys(300, 50_000)])
    assert held_back(found, gateways, counts) == set(keys(300, 50_000))


def test_what_is_left_of_gateways_that_are_gone_holds_nothing_back() -> None:
    left = changes(keys(20_000, inside=IPv4Address("100.64.7.7")), keys(10))
    assert held_back(left, GATEWAYS, {WEB: 10}) == frozenset()


def test_an_endpoint_that_moves_to_another_tunnel_is_never_held_back() -> None:
    moved = {key: Difference(VIA, replace(VIA, tunnel=8)) for key in keys(5, 90_000)}
    found = changes(keys(20_000), ()) | moved
    assert held_back(found, GATEWAYS, {WEB: 5}) == frozenset()


def test_the_time_counts_from_when_an_endpoint_left() -> None:
    leaving, (a, b) = Leaving(), keys(2)
    leaving.follow({WEB: {a}}, (), untold, lambda _: 100)
    leaving.follow({WEB: {a, b}}, (), untold, lambda _: 102)
    assert leaving.released(lambda _: 99) == frozenset()
    assert leaving.released(lambda _: 100) == {a}
    assert leaving.released(lambda _: 102) == {a, b}


def test_what_the_envoy_is_told_still_does_not_go() -> None:
    leaving, (a, b) = Leaving(), keys(2)
    leaving.follow({WEB: {a, b}}, (), lambda _, asked: frozenset({a} & set(asked)), lambda _: 100)
    assert leaving.released(lambda _: 1000) == {b}


def test_what_the_envoy_may_have_been_told_again_is_looked_at_again() -> None:
    leaving, (a, b) = Leaving(), keys(2)
    leaving.follow({WEB: {a, b}}, (), untold, lambda _: 100)
    leaving.follow({WEB: {a, b}}, {WEB}, lambda _, asked: frozenset({a} & set(asked)), lambda _: 101)
    assert leaving.released(lambda _: 1000) == {b}


def test_an_endpoint_that_came_back_leaves_anew() -> None:
    leaving, (a,) = Leaving(), keys(1)
    leaving.follow({WEB: {a}}, (), untold, lambda _: 100)
    leaving.follow({}, (), untold, lambda _: 101)
    leaving.follow({WEB: {a}}, (), untold, lambda _: 102)
    assert leaving.released(lambda _: 101) == frozenset()
