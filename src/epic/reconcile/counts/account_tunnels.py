# SPDX-License-Identifier: Apache-2.0
"""How many tunnels the gateways of an account have and are to have, together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from epic.model.values.naming import GatewayId


class TunnelCounts(NamedTuple):
    """Tunnels of a gateway, or of several.

    `used` count for what they have, and `wanted` for what they are to have, each workload node once for each
    instance; so many of these are `missing`.
    """

    used: int = 0
    wanted: int = 0
    missing: int = 0


class AccountTunnels:
    """The counts of accounts; those of gateways are taken anew only of what has changed."""

    def __init__(self) -> None:
        self._of_gateways: dict[GatewayId, TunnelCounts] = {}
        self._of_accounts: dict[str, TunnelCounts] = {}

    def take(self, changed: set[GatewayId], count: Callable[[GatewayId], TunnelCounts]) -> None:
        """Count these gateways anew, of which none is left in the set then."""
        while changed:
            gateway = changed.pop()
            old, new = self._of_gateways.pop(gateway, TunnelCounts()), count(gateway)
            if any(new):
                self._of_gateways[gateway] = new
            of_account = self._of_accounts.pop(gateway.account, TunnelCounts())
            sums = TunnelCounts(*(s - o + n for s, o, n in zip(of_account, old, new, strict=True)))
            if any(sums):
                self._of_accounts[gateway.account] = sums

    def of(self, account: str) -> TunnelCounts:
        """The counts of all the account's gateways together."""
        return self._of_accounts.get(account, TunnelCounts())
