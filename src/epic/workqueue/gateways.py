# SPDX-License-Identifier: Apache-2.0
"""Gateways that something is to be done for, in turns of their accounts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from epic.model.values.naming import GatewayId


class WaitingGateways:
    """Each waits once, however often it is added; those of an account keep no other account's waiting."""

    def __init__(self) -> None:
        self._of: dict[str, dict[GatewayId, None]] = {}
        """By account, in the order in which they came."""

    def __contains__(self, gateway: GatewayId) -> bool:
        return gateway in self._of.get(gateway.account, {})

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, gateways: Iterable[GatewayId]) -> None:
        """Something is to be done for these."""
        for gateway in gateways:
            self._of.setdefault(gateway.account, {})[gateway] = None

    def take(self, most: int | None = None) -> list[GatewayId]:
        """The first `most` of each account, or all of them; they wait no more."""
        taken: list[GatewayId] = []
        for account, waiting in list(self._of.items()):
            turn = list(islice(waiting, most))
            for gateway in turn:
                del waiting[gateway]
            if not waiting:
                del self._of[account]
            taken += turn
        return taken
