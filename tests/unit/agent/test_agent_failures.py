# SPDX-License-Identifier: Apache-2.0
"""What the kernel refuses is said in a line, is known of its gateways, and is not tried all the time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from agent_samples import INSIDE, INSIDE6

from epic.agent.gateway.desired import Tunnel
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.failures import Failure, Failures

log = logging.getLogger(__name__)
FULL = "there are 4 tunnels on this node already, and no room for more"


def tunnel(id_: int, gateway: str = "a.g", signing: int = 1) -> plan.SetTunnel:
    return plan.SetTunnel(Tunnel(id_, gateway, 1, INSIDE, INSIDE6, (b"k", None), 0, signing=signing))


class Node:
    """A node that has no room, and what was tried on it in the last round."""

    def __init__(self) -> None:
        self.time = 0.0
        self.failures = Failures(log, lambda: self.time)
        self.tried: list[plan.Action] = []
        self.full = True

    def round(self, *actions: plan.Action, reason: str = FULL) -> float | None:
        self.failures.begin()
        self.tried = self.failures.due(actions)
        refused = [a for a in self.tried if self.full and isinstance(a, plan.SetTunnel | plan.AttachInstance)]
        self.failures.note(self.tried, [Failure(action, reason) for action in refused])
        return self.failures.conclude()


def waits(node: Node, actions: Sequence[plan.Action], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        seconds = node.round(*actions)
        assert seconds is not None
        found.append(seconds)
        node.time += seconds
    return found


def test_thousands_of_refused_tunnels_are_one_line_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            node.round(*[tunnel(i, f"a.g{i % 3}") for i in range(5000)])
    line = f"cannot set tunnel 0 of gateway a.g0, and 4999 more like it of 3 gateways: {FULL}"
    assert node.failures.problems == (line,)
    assert [record.getMessage() for record in caplog.records] == [line]
    assert node.failures.by_gateway == {f"a.g{i}": f"its tunnels cannot be set: {FULL}" for i in range(3)}


def test_what_fails_again_is_tried_after_growing_times() -> None:
    node = Node()
    assert waits(node, [tunnel(1)], 7) == [1, 2, 4, 8, 16, 30, 30]


def test_between_tries_only_what_has_not_failed_as_it_is_is_tried() -> None:
    node = Node()
    node.round(tunnel(1), tunnel(2))
    node.round(tunnel(1), tunnel(2, signing=2), tunnel(3))
    assert node.tried == [tunnel(2, signing=2), tunnel(3)]
    node.round(tunnel(1), tunnel(2, signing=2), tunnel(3))
    assert node.tried == []
    assert node.failures.by_gateway.keys() == {"a.g"}


def test_a_tunnel_that_goes_makes_room_at_once() -> None:
    node = Node()
    waits(node, [tunnel(1)], 5)
    node.round(tunnel(1))
    assert node.round(tunnel(1), plan.DeleteTunnel(9)) == 1
    node.full = False
    assert node.round(tunnel(1)) is None
    assert node.tried == [tunnel(1)]


def test_a_node_that_has_changed_is_tried_at_once() -> None:
    node = Node()
    waits(node, [tunnel(1)], 5)
    node.round(tunnel(1))
    node.failures.try_again()
    node.round(tunnel(1))
    assert node.tried == [tunnel(1)]


def test_a_change_in_the_middle_of_a_round_is_not_missed() -> None:
    node = Node()
    waits(node, [tunnel(1)], 5)
    node.failures.begin()
    tried = node.failures.due([tunnel(1)])
    node.failures.try_again()
    node.failures.note(tried, [Failure(tunnel(1), FULL)])
    assert node.failures.conclude() == 1
    node.round(tunnel(1))
    assert node.tried == [tunnel(1)]


def test_what_is_over_is_said_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.round(tunnel(1))
    node.time, node.full = 5.0, False
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert node.round(tunnel(1)) is None
    assert node.failures.problems == ()
    assert node.failures.by_gateway == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"over: cannot set tunnel 1 of gateway a.g: {FULL}"
    ]


def test_many_reasons_are_a_few_lines() -> None:
    node = Node()
    node.failures.begin()
    failures = [Failure(tunnel(i), f"reason {i}") for i in range(9)]
    node.failures.note([], failures)
    node.failures.conclude()
    assert len(node.failures.problems) == 6
    assert node.failures.problems[-1] == "cannot do 4 more, for 4 other reasons"
