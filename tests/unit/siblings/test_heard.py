# SPDX-License-Identifier: Apache-2.0
"""What nodes said of their lists: who says something else, how old it is, since when it is so."""

from __future__ import annotations

from epic.model.naming import GatewayId
from epic.siblings.heard import AppliedLists
from epic.siblings.waiting import Said

ONE, OTHER = GatewayId("a", "u1"), GatewayId("a", "u2")


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_only_gateways_of_which_a_node_says_something_else_are_told() -> None:
    lists = AppliedLists()
    assert lists.take("e1", {ONE: "v1", OTHER: "v1"}) == {ONE, OTHER}
    assert lists.take("e1", {ONE: "v1", OTHER: "v2"}) == {OTHER}
    assert lists.take("e2", {ONE: "v1"}) == {ONE}


def test_a_node_has_a_version_since_it_said_so_first() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    lists.take("e1", {ONE: "v1", OTHER: "v1"})
    clock.time += 5
    lists.take("e1", {ONE: "v1", OTHER: "v2"})
    clock.time += 1
    assert lists.said(ONE, ["e1"])["e1"] == Said("v1", age=1.0, held=6.0)
    assert lists.said(OTHER, ["e1"])["e1"] == Said("v2", age=1.0, held=1.0)


def test_who_was_not_heard_of_is_silent_since_one_listens() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    clock.time += 7
    assert lists.said(ONE, ["e1"])["e1"] == Said(None, age=7.0)
    lists.take("e1", {OTHER: "v1"})
    assert lists.said(ONE, ["e1"])["e1"] == Said(None, age=0.0)


def test_nodes_that_are_gone_are_forgotten() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    lists.take("e1", {ONE: "v1"})
    clock.time += 3601
    lists.take("e2", {ONE: "v1"})
    assert lists.said(ONE, ["e1"])["e1"].version is None
