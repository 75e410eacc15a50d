# SPDX-License-Identifier: Apache-2.0
"""A queue of keys: each waits at most once, and one that fails is tried again ever later."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0


class KeyQueue(Generic[K]):
    """Keys that are due now or later. It belongs to one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._failures: dict[K, int] = {}

    def add(self, key: K, delay: float = 0.0) -> None:
        """See to it that the key is due within `delay` seconds."""
        self._schedule(key, max(delay, 0.0))

    def take(self, limit: int) -> list[K]:
        """At most `limit` keys that are due, those first that are due longest."""
        found: list[K] = []
        now = self._clock()
        while self._heap and len(found) < limit and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                found.append(key)
        return found

    def wait(self) -> float | None:
        """Seconds until a key is due; None: there is none."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None

    def failed(self, key: K) -> int:
        """Try the key again later; returns how often it has failed in a row."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._schedule(key, min(_FIRST_DELAY * 2 ** min(count - 1, 10), _LONGEST_DELAY))
        return count

    def succeeded(self, key: K) -> bool:
        """Note that the key could be worked on; returns whether it had failed before."""
        return self._failures.pop(key, None) is not None

    def _schedule(self, key: K, delay: float) -> None:
        at = self._clock() + delay
        if self._due.get(key, at + 1) > at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._numbers), key))
