# SPDX-License-Identifier: Apache-2.0
"""Gateways wait in turns of their accounts."""

from __future__ import annotations

from epic.model.values.naming import GatewayId
from epic.workqueue.gateways import WaitingGateways

GREEDY = [GatewayId("greedy", f"g{number}") for number in range(5)]
MODEST = GatewayId("modest", "g0")


def test_each_account_has_its_turn_whatever_others_have() -> None:
    waiting = WaitingGateways()
    waiting.add([*GREEDY, MODEST])
    assert waiting.take(2) == [*GREEDY[:2], MODEST]
    assert waiting.take(2) == GREEDY[2:4]
    assert len(waiting) == 1
    assert waiting.take() == GREEDY[4:]
    assert waiting.take() == []


def test_a_gateway_that_is_added_again_keeps_its_turn_and_has_it_once() -> None:
    waiting = WaitingGateways()
    waiting.add(GREEDY[:2])
    waiting.add(GREEDY[:1])
    assert GREEDY[0] in waiting
    assert waiting.take() == GREEDY[:2]
    assert GREEDY[0] not in waiting
