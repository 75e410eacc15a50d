# SPDX-License-Identifier: Apache-2.0
"""How fast each account may send: what is read and checked for one takes time from all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil

from epic.errors import TooManyRequests

AT_ONCE = 16 << 20
"""Bytes of bodies: all routes and EndpointSlices of an account that begins, and measurements besides."""
A_SECOND = 1 << 20
_LONGEST_SECONDS = 5.0
"""Who would have to wait longer is refused: a request that waits keeps its connection."""


class TooManyBytes(TooManyRequests):
    """The account sends faster than it may; `seconds` from now it may go on."""

    def __init__(self, account: str, seconds: int) -> None:
        super().__init__(
            f"account {account!r} has sent too much; repeat it in {seconds} s: {AT_ONCE} bytes are possible "
            f"at once, and {A_SECOND} each second"
        )
        self.seconds = seconds


@dataclass
class _Sent:
    """Bytes that count still."""

    count: float
    at: float


class BodyRate:
    """What accounts have sent of late."""

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}

    async def take(self, account: str, count: int) -> None:
        """Wait until the account may send so many bytes more. Raises TooManyBytes."""
        now = time.monotonic()
        sent = self._sent.setdefault(account, _Sent(0, now))
        sent.count = max(0.0, sent.count - (now - sent.at) * A_SECOND)
        sent.at = now
        wait = (sent.count - AT_ONCE) / A_SECOND
        if wait > _LONGEST_SECONDS:
            raise TooManyBytes(account, ceil(wait))
        sent.count += count
        if wait > 0:
            await asyncio.sleep(wait)
