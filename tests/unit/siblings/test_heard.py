# SPDX-License-Identifier: Apache-2.0
"""What nodes said of their lists: who says something else, how old it is, since when it is so."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from epic.model.base import now
from epic.model.siblings import Sibling
from epic.model.values.naming import GatewayId
from epic.siblings.heard import AppliedLists
from epic.siblings.waiting import SILENT_MAX, Said

SILENT = SILENT_MAX.total_seconds()
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


def siblings() -> list[Sibling]:
    """Those of nodes e1, e2 and e3, whose addresses are 0.0.0.1 to 0.0.0.3."""
    return [
        Sibling(node=f"e{n}", index=n, address=IPv4Address(n), joined=1, since=now()) for n in range(1, 4)
    ]


def report(lists: AppliedLists, clock: Clock, said: dict[str, list[int]], seconds: float) -> None:
    """The nodes say for so long, every five seconds, who does not answer them."""
    until = clock.time + seconds
    while True:
        for node, numbers in said.items():
            lists.take(node, {}, [str(IPv4Address(number)) for number in numbers])
        if clock.time >= until:
            return
        clock.time = min(clock.time + 5, until)


@pytest.mark.parametrize(
    ("said", "silent"),
    [
        ({"e1": [3], "e2": [3]}, {"e3"}),
        ({"e1": [3], "e2": []}, set()),
        ({"e1": [3]}, {"e3"}),
        ({"e1": [2, 3]}, {"e2", "e3"}),
        ({"e3": [3]}, set()),
        ({}, set()),
    ],
)
def test_a_node_is_silent_that_answers_none_of_the_others_who_report(
    said: dict[str, list[int]], silent: set[str]
) -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    report(lists, clock, said, SILENT)
    assert lists.silent(siblings()) == silent


def test_a_node_is_silent_when_it_has_been_so_for_two_minutes_and_not_before() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    report(lists, clock, {"e1": [3], "e2": [3]}, SILENT - 1)
    assert lists.silent(siblings()) == set()
    report(lists, clock, {"e1": [3], "e2": [3]}, 1)
    assert lists.silent(siblings()) == {"e3"}


@pytest.mark.parametrize("who", ["e1", "e2"])
def test_one_answer_to_anybody_begins_the_two_minutes_anew(who: str) -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    report(lists, clock, {"e1": [3], "e2": [3]}, SILENT)
    lists.take(who, {}, [])
    assert lists.silent(siblings()) == set()
    report(lists, clock, {"e1": [3], "e2": [3]}, SILENT - 1)
    assert lists.silent(siblings()) == set()


def test_what_happened_between_reports_that_are_far_apart_is_not_known() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    for _ in range(2):
        lists.take("e1", {}, ["0.0.0.3"])
        clock.time += SILENT
    lists.take("e1", {}, ["0.0.0.3"])
    assert lists.silent(siblings()) == set()


def test_what_a_node_said_of_others_counts_while_it_reports() -> None:
    clock = Clock()
    lists = AppliedLists(clock)
    report(lists, clock, {"e1": [3]}, SILENT)
    clock.time += 12
    assert lists.silent(siblings()) == {"e3"}
    clock.time += 1
    assert lists.silent(siblings()) == set()
