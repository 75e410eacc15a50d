# SPDX-License-Identifier: Apache-2.0
"""Budgets of an agent that starts again: which are there for whom."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

from epic.bpf.tables.budgets import Budgets, account_key
from epic.bpf.tables.records import pack_address

NOTHING_USED = bytes(8)
# As an account's key, the second half of this one's is 0.
FIRST, SECOND = (pack_address(IPv6Address(text)) for text in ("2001:db8:1::", "2001:db8:1::1"))


class HeldBudgets(dict[bytes, bytes]):
    """The programs' budgets: what `Map` has and Budgets uses."""

    set = dict.__setitem__

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None

    def items(self) -> Iterator[tuple[bytes, bytes]]:  # type: ignore[override]
        yield from list(super().items())


def test_a_gateways_own_budget_outlasts_its_agent_whatever_its_address() -> None:
    held: Any = HeldBudgets()
    before = Budgets(held, {})
    for gateway in (FIRST, SECOND):
        before.put(gateway, 7, renewed=True)
    again = Budgets(held, {FIRST: 7, SECOND: 7})
    again.put(FIRST, 7, renewed=True)
    again.put(SECOND, 7, renewed=False)
    assert held[FIRST] == held[SECOND] == held[account_key(7)] == NOTHING_USED


def test_what_an_account_has_left_goes_after_the_agents_start() -> None:
    held: Any = HeldBudgets({account_key(7): NOTHING_USED})
    Budgets(held, {}).put(SECOND, 8, renewed=True)
    assert account_key(7) not in held
