# SPDX-License-Identifier: Apache-2.0
"""Placement: spread, capacity, stability."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.errors import Exhausted
from epic.placement import Candidate, place

gateways = st.from_regex(r"[a-z]{1,8}\.[A-Z0-9]{1,8}", fullmatch=True)
candidates = st.builds(
    Candidate,
    name=st.from_regex(r"n[0-9]{1,2}", fullmatch=True),
    capacity=st.integers(0, 3),
    load=st.integers(0, 3),
    schedulable=st.booleans(),
    unheard=st.booleans(),
)
clusters = st.lists(candidates, unique_by=lambda node: node.name, max_size=12)


def nodes(count: int, **fields: int) -> list[Candidate]:
    return [Candidate(f"n{i}", fields.get("capacity", 1000), fields.get("load", 0)) for i in range(count)]


@given(gateway=gateways, cluster=clusters, count=st.integers(1, 4))
def test_instances_go_to_different_nodes_with_room_as_many_as_there_are(
    gateway: str, cluster: list[Candidate], count: int
) -> None:
    room = {node.name for node in cluster if node.has_room}
    if not room:
        with pytest.raises(Exhausted):
            place(gateway, cluster, count)
        return
    chosen = place(gateway, cluster, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(room))
    assert set(chosen) <= room


@given(gateway=gateways, cluster=clusters, count=st.integers(1, 4))
def test_order_of_nodes_does_not_matter(gateway: str, cluster: list[Candidate], count: int) -> None:
    if any(node.has_room for node in cluster):
        assert place(gateway, cluster, count) == place(gateway, cluster[::-1], count)


@given(gateway=gateways, cluster=clusters, count=st.integers(1, 4))
def test_nodes_that_no_router_hears_are_chosen_last(
    gateway: str, cluster: list[Candidate], count: int
) -> None:
    room = [node for node in cluster if node.has_room]
    if not room:
        return
    heard = {node.name for node in room if not node.unheard}
    assert len(heard & set(place(gateway, cluster, count))) == min(count, len(heard))


@given(gateway=gateways, leaving=st.integers(0, 7))
def test_a_node_that_leaves_moves_only_its_own_instance(gateway: str, leaving: int) -> None:
    before = place(gateway, nodes(8), 2)
    after = place(gateway, [n for n in nodes(8) if n.name != f"n{leaving}"], 2)
    assert set(before) - set(after) <= {f"n{leaving}"}


def test_gateways_spread_evenly() -> None:
    load = Counter(name for i in range(1000) for name in place(f"a.G{i}", nodes(4), 2))
    assert all(400 < load[f"n{i}"] < 600 for i in range(4))


def test_instances_stay_where_they_are_even_on_a_full_node() -> None:
    full = Candidate("full", capacity=1, load=1)
    assert place("a.G", [full, *nodes(3)], 2, keep=["full", "gone"])[0] == "full"


def test_no_room_says_why_and_what_to_do() -> None:
    cluster = [Candidate("a", 1, 1), Candidate("b", 5, 0, schedulable=False)]
    with pytest.raises(Exhausted, match="the platform has no room for another gateway now") as refused:
        place("a.G", cluster, 2)
    assert "of 2 EPIC nodes 1 are not schedulable and 1 are at their capacity; add" in refused.value.detail
