# SPDX-License-Identifier: Apache-2.0
"""Replies that several streams of an account send: made once for all, and one after the other.

An account may have a thousand streams. What they send is made in threads that everybody else needs, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

Reply = dict[str, Any]
"""Has the `revision` of the store that it is of, or an earlier one than what it holds."""


class _Turn:
    """That of an account."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()


class SharedReply:
    """What all streams send that ask for the same."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._newest: Reply | None = None

    async def since(self, revision: int, make: Callable[[], Reply]) -> Reply:
        """A reply of this revision or a later one; `make` runs in a thread."""
        async with self._turn.lock:
            if self._newest is None or self._newest["revision"] < revision:
                self._newest = await asyncio.to_thread(make)
            return self._newest


class SharedReplies:
    """Kept for as long as a stream has them."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._replies: WeakValueDictionary[tuple[str, object], SharedReply] = WeakValueDictionary()

    def of(self, account: str, key: object) -> SharedReply:
        """That of the account under this key."""
        found = self._replies.get((account, key))
        if found is None:
            turn = self._turns.get(account)
            if turn is None:
                turn = self._turns[account] = _Turn()
            found = self._replies[account, key] = SharedReply(turn)
        return found
