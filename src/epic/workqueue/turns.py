# SPDX-License-Identifier: Apache-2.0
"""Places for long work that are given out in turns, so that no account keeps the others waiting."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class AccountTurns:
    """A place that gets free is for the account that has fewest; of those with as many, each has its turn.

    An account has all places but one at most: another that comes does not wait for what takes long.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._most = max(1, places - 1)
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Have a place for as long as the block takes."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(place)
        self._give()
        try:
            await place
            yield
        finally:
            if place.done() and not place.cancelled():
                self._free += 1
                self._taken[account] -= 1
                if not self._taken[account]:
                    del self._taken[account]
            self._give()

    def _give(self) -> None:
        while self._free:
            account = min(
                (a for a in self._waiting if self._taken[a] < self._most),
                key=lambda a: self._taken[a],
                default=None,
            )
            if account is None:
                return
            waiting = self._waiting.pop(account)
            place = waiting.popleft()
            if waiting:
                self._waiting[account] = waiting  # behind the others
            if not place.cancelled():
                self._free -= 1
                self._taken[account] += 1
                place.set_result(None)
