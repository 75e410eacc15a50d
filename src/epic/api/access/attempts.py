# SPDX-License-Identifier: Apache-2.0
"""How often passwords may be wrong, and who is next when several wait for theirs to be verified.

A source is an address, or a site's IPv6 network. Who guesses spends their own source's attempts, so that
nobody can lock a user out from elsewhere; what was verified before needs no attempt at all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from epic.errors import TooManyRequests

# Longer than any user's name: what clients send as one has no bound of its own.
_NAME_MAX = 64
_KEYS_MAX = 10_000


class TooManyAttempts(TooManyRequests):
    """Passwords were wrong too often; `seconds` from now another may be tried."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"too many wrong passwords came from your address or for this user; repeat it in {seconds} s"
        )
        self.seconds = seconds


@dataclass(frozen=True)
class _Level:
    level: float
    at: float


class _Buckets:
    """Leaky buckets by key: each holds `burst` and loses one every `seconds`; the longest unused goes."""

    def __init__(self, burst: int, seconds: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._levels: dict[str, _Level] = {}

    def level(self, key: str) -> float:
        """How full it is."""
        found = self._levels.get(key)
        return max(0.0, found.level - (self._clock() - found.at) / self._seconds) if found else 0.0

    def wait(self, key: str) -> float:
        """The seconds until one more has room."""
        return max(0.0, self.level(key) + 1 - self._burst) * self._seconds

    def add(self, key: str, amount: int) -> None:
        """Put one in, or take it back."""
        level = max(0.0, self.level(key) + amount)
        self._levels.pop(key, None)
        if len(self._levels) >= _KEYS_MAX:
            del self._levels[next(iter(self._levels))]
        self._levels[key] = _Level(level, self._clock())


class Attempts:
    """Wrong passwords of each source and for each user name. One counts until it turns out to be right."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = _Buckets(20, 5.0, clock)
        self._names = _Buckets(60, 1.0, clock)

    def begin(self, source: str, name: str) -> None:
        """Count an attempt; raises TooManyAttempts."""
        name = name[:_NAME_MAX]
        wait = self._sources.wait(source)
        if self._sources.level(source) > 0:
            # When many guess one user's password together, a source that has not been wrong is still heard.
            wait = max(wait, self._names.wait(name))
        if wait > 0:
            raise TooManyAttempts(math.ceil(wait))
        self._sources.add(source, 1)
        self._names.add(name, 1)

    def forgive(self, source: str, name: str) -> None:
        """Take an attempt back that was right, or cost nothing."""
        self._sources.add(source, -1)
        self._names.add(name[:_NAME_MAX], -1)


class SourceTurns:
    """Lets so many do something at once; those who wait have their turn source by source."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, source: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends."""
        await self._wait(source)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, source: str) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(source, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            source, queue = next(iter(self._waiting.items()))
            del self._waiting[source]
            first = queue.popleft()
            if queue:
                self._waiting[source] = queue
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
