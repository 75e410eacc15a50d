# SPDX-License-Identifier: Apache-2.0
"""How much each account may ask for: what is read, checked and answered for one takes time from all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil

from starlette.types import Message, Send

from epic.errors import TooManyRequests
from epic.model.resources import Account, AccountSpec
from epic.store.interface import Store

_LEAST = AccountSpec().bytes_limit
# Of the bytes that the account's objects may have: a quarter at once, and all of them in a minute.
_AT_ONCE = 1 / 4
_A_SECOND = 1 / 64
LEAST_BYTES = 4 << 10
"""Of a request: to know who asks, and to find what is asked for, takes time whatever is sent."""
_OF_REPLIES = 1 / 4
"""Of a reply's bytes: they are written faster than those of a body are read and checked."""
_LONGEST_SECONDS = 5.0
"""Who would have to wait longer is refused: a request that waits keeps its connection."""


class TooManyBytes(TooManyRequests):
    """The account asks for more than it may; `seconds` from now it may go on."""

    def __init__(self, account: str, seconds: int, limit: int) -> None:
        super().__init__(
            f"account {account!r} has asked for too much; repeat it in {seconds} s: "
            f"{int(limit * _AT_ONCE)} bytes are possible at once, and {int(limit * _A_SECOND)} each second; "
            f"a request counts for {LEAST_BYTES} at least, and a reply for a quarter of its bytes"
        )
        self.seconds = seconds


@dataclass
class _Sent:
    """Bytes that count still."""

    count: float
    at: float


class BodyRate:
    """What accounts have sent and been answered of late."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sent: dict[str, _Sent] = {}

    async def take(self, account: str, count: int) -> None:
        """Wait until the account may send a request with a body of so many bytes. Raises TooManyBytes."""
        wait = self.check(account)
        self._sent[account].count += max(count, LEAST_BYTES)
        if wait > 0:
            await asyncio.sleep(wait)

    def check(self, account: str) -> float:
        """How long the account would have to wait now, in seconds. Raises TooManyBytes."""
        limit = self._limit(account)
        sent = self._until_now(account, limit)
        wait = (sent.count - limit * _AT_ONCE) / (limit * _A_SECOND)
        if wait > _LONGEST_SECONDS:
            raise TooManyBytes(account, ceil(wait), limit)
        return wait

    def counting(self, account: str, send: Send) -> Send:
        """`send` that counts what the account is answered."""

        async def sending(message: Message) -> None:
            self.add_reply(account, len(message.get("body", b"")))
            await send(message)

        return sending

    def add_reply(self, account: str, count: int) -> None:
        """The account was answered so many bytes, or more of them."""
        self._until_now(account, self._limit(account)).count += count * _OF_REPLIES

    def _until_now(self, account: str, limit: int) -> _Sent:
        """What counts still."""
        now = time.monotonic()
        sent = self._sent.setdefault(account, _Sent(0, now))
        sent.count = max(0.0, sent.count - (now - sent.at) * limit * _A_SECOND)
        sent.at = now
        return sent

    def _limit(self, name: str) -> int:
        """Who may have more may send more; who may have less changes and deletes still."""
        account = self._store.find_readable(Account, "", name)
        if account is None:
            return _LEAST
        return max(_LEAST, account.spec.bytes_limit)
