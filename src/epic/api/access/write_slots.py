# SPDX-License-Identifier: Apache-2.0
"""How many requests that change something are carried out at once, and for whom.

A client that sends its body slowly, or a disk that hangs, keeps a place for a while: of one account only so
many, and none of the administrators', who may have to end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

# Handlers have 40 threads: writes that wait for a disk which hangs must leave some to those who read.
_OF_ACCOUNTS = 20
_OF_ONE_ACCOUNT = 5
_OF_ADMINISTRATORS = 4


class WriteSlots:
    """Places for requests, given in the order in which they are asked for."""

    def __init__(self) -> None:
        self._accounts = asyncio.Semaphore(_OF_ACCOUNTS)
        self._administrators = asyncio.Semaphore(_OF_ADMINISTRATORS)
        # Who waits or writes holds it; of who does neither nothing is kept.
        self._account: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, account: str) -> AsyncIterator[None]:
        """Wait for a place for a user of the account (empty: an administrator), and keep it for the block."""
        if not account:
            async with self._administrators:
                yield
            return
        own = self._account.get(account)
        if own is None:
            own = self._account[account] = asyncio.Semaphore(_OF_ONE_ACCOUNT)
        async with own, self._accounts:
            yield
