# SPDX-License-Identifier: Apache-2.0
"""How many requests are carried out at once, and for whom.

A disk that hangs keeps a place for a while, and so does much that is asked for: of one account only so many,
and none of the administrators', who may have to end it. Who sends slowly, or takes slowly what it has asked
for, has none meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from starlette.types import Message, Send

from epic.errors import TooManyRequests


@dataclass(frozen=True)
class Places:
    """How many there are: for all accounts, for each of them, and for administrators."""

    accounts: int
    one_account: int
    administrators: int


# Handlers have 40 threads. Writes that wait for a disk which hangs leave some to those who read, and both
# some to what has no place, such as the question whether the API answers.
WRITES = Places(20, 5, 4)
READS = Places(10, 4, 4)
_BODIES_OF_ONE_ACCOUNT = 16
"""That are held in memory until there is a place for what they are to do."""
_MOST_WAITING = 2048
"""Of an account, as many as it may have connections: whose connection is closed waits on."""


class TooManyWaiting(TooManyRequests):
    """As many requests of the account wait for a place as may."""


class Slots:
    """Places for requests, given in the order in which they are asked for."""

    def __init__(self, places: Places) -> None:
        self._accounts = asyncio.Semaphore(places.accounts)
        self._administrators = asyncio.Semaphore(places.administrators)
        self._account = OfAccounts(places.one_account)

    @asynccontextmanager
    async def take(self, account: str) -> AsyncIterator[None]:
        """Wait for a place for a user of the account (empty: an administrator), and keep it for the block.

        Raises TooManyWaiting.
        """
        if not account:
            async with self._administrators:
                yield
            return
        async with self._account.take(account), self._accounts:
            yield


class _OfOne(asyncio.Semaphore):
    """An account's places, and how many requests wait for one."""

    waiting = 0


class OfAccounts:
    """As many places for each account."""

    def __init__(self, most: int = _BODIES_OF_ONE_ACCOUNT) -> None:
        self._most = most
        # Who waits or has a place holds it; of who does neither nothing is kept.
        self._places: WeakValueDictionary[str, _OfOne] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._places)

    @asynccontextmanager
    async def take(self, account: str) -> AsyncIterator[None]:
        """Wait for a place of the account, and keep it for the block. Raises TooManyWaiting."""
        places = self._places.get(account)
        if places is None:
            places = self._places[account] = _OfOne(self._most)
        if places.waiting >= _MOST_WAITING:
            raise TooManyWaiting
        places.waiting += 1
        try:
            await places.acquire()
        finally:
            places.waiting -= 1
        try:
            yield
        finally:
            places.release()


class UntilAnswered:
    """A place that is given back when the answer begins: how long a client takes to read it costs nobody."""

    def __init__(self, slot: AbstractAsyncContextManager[None]) -> None:
        self._slot = slot
        self._held = AsyncExitStack()

    async def __aenter__(self) -> UntilAnswered:
        await self._held.enter_async_context(self._slot)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    def returning(self, send: Send) -> Send:
        """`send` that gives the place back."""

        async def sending(message: Message) -> None:
            await self._held.aclose()
            await send(message)

        return sending
