# SPDX-License-Identifier: Apache-2.0
"""How fast each account may send: what is read and checked for one takes time from all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil

from epic.errors import TooManyRequests
from epic.model.resources import Account, AccountSpec
from epic.store.interface import Store

_LEAST = AccountSpec().bytes_limit
# Of the bytes that the account's objects may have: a quarter at once, and all of them in a minute.
_AT_ONCE = 1 / 4
_A_SECOND = 1 / 64
_LONGEST_SECONDS = 5.0
"""Who would have to wait longer is refused: a request that waits keeps its connection."""


class TooManyBytes(TooManyRequests):
    """The account sends faster than it may; `seconds` from now it may go on."""

    def __init__(self, account: str, seconds: int, limit: int) -> None:
        super().__init__(
            f"account {account!r} has sent too much; repeat it in {seconds} s: {int(limit * _AT_ONCE)} bytes "
            f"are possible at once, and {int(limit * _A_SECOND)} each second"
        )
        self.seconds = seconds


@dataclass
class _Sent:
    """Bytes that count still."""

    count: float
    at: float


class BodyRate:
    """What accounts have sent of late."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sent: dict[str, _Sent] = {}

    async def take(self, account: str, count: int) -> None:
        """Wait until the account may send so many bytes more. Raises TooManyBytes."""
        now, limit = time.monotonic(), self._limit(account)
        sent = self._sent.setdefault(account, _Sent(0, now))
        sent.count = max(0.0, sent.count - (now - sent.at) * limit * _A_SECOND)
        sent.at = now
        wait = (sent.count - limit * _AT_ONCE) / (limit * _A_SECOND)
        if wait > _LONGEST_SECONDS:
            raise TooManyBytes(account, ceil(wait), limit)
        sent.count += count
        if wait > 0:
            await asyncio.sleep(wait)

    def _limit(self, name: str) -> int:
        """Who may have more may send more; who may have less sends measurements still."""
        account = self._store.find(Account, "", name)
        return max(_LEAST, account.spec.bytes_limit if account is not None else 0)
