# SPDX-License-Identifier: Apache-2.0
"""Second chance: the budgets of packets of unknown flows: a gateway's, its account's, and the node's."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping

from epic.bpf.tables import records
from epic.bpf.tables.maps import Map

NODE = bytes(records.ADDRESS.size)
"""Where the budget is of all gateways together."""

_NOTHING_USED = bytes(records.COUNT.size)
_HALF = bytes(records.ADDRESS.size // 2)
_AT_ONCE = 2


def account_key(account: int) -> bytes:
    """Where the budget is of an account's gateways: gateways get no address whose second half is 0."""
    return records.COUNT.pack(account) + _HALF


class Budgets:
    """The budgets that there are.

    Only a gateway's own is filled up by a change of its list: gateways could come and go to lift the others.
    So that of an account outlasts its last gateway until nothing of it is used.
    """

    def __init__(self, held: Map, accounts: Mapping[bytes, int]) -> None:
        self._held = held
        self._accounts = dict(accounts)
        """By the gateway's public address, packed."""
        self._gateways = Counter(self._accounts.values())
        there = {key for key, _ in held.items() if key.endswith(_HALF) and key != NODE}
        needed = {account_key(account) for account in self._gateways}
        # What a gateway has is no account's, whatever its address.
        self._left = deque(there - needed - set(self._accounts))

    def put(self, gateway: bytes, account: int, *, renewed: bool) -> None:
        """The gateway has a budget, `renewed` or as it is, and shares that of its account."""
        if self._accounts.get(gateway) != account:
            self._leave(gateway)
            self._accounts[gateway] = account
            self._gateways[account] += 1
        if renewed:
            self._held.set(gateway, _NOTHING_USED)
        for key in (account_key(account), NODE):
            if self._held.get(key) is None:
                self._held.set(key, _NOTHING_USED)
        self._tidy()

    def delete(self, gateway: bytes) -> None:
        """The gateway is gone."""
        self._held.delete(gateway)
        self._leave(gateway)
        self._tidy()

    def _leave(self, gateway: bytes) -> None:
        account = self._accounts.pop(gateway, None)
        if account is None:
            return
        self._gateways[account] -= 1
        if not self._gateways[account]:
            del self._gateways[account]
            self._left.append(account_key(account))

    def _tidy(self) -> None:
        """Look at some of those that accounts without a gateway have left."""
        for _ in range(min(_AT_ONCE, len(self._left))):
            key = self._left.popleft()
            (account,) = records.COUNT.unpack_from(key)
            used_until = self._held.get(key)
            if account in self._gateways or used_until is None:
                continue
            if records.COUNT.unpack(used_until)[0] > time.monotonic_ns():
                self._left.append(key)
            else:
                self._held.delete(key)
