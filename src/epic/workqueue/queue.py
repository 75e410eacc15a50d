# SPDX-License-Identifier: Apache-2.0
"""A queue of keys: each waits at most once, nobody works on one twice at a time, failures come ever later."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic, TypeVar

from epic.workqueue.backoff import DEFAULT_BACKOFF, Backoff
from epic.workqueue.metrics import QueueMetrics

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that are due now or later. It belongs to one thread at a time.

    A key that is added while it is being worked on is due again when that is done: what is read after a
    key was taken is never older than what it was added for.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        self._clock = clock
        self._backoff = backoff
        self._ready: deque[K] = deque()
        self._ready_since: dict[K, float] = {}
        self._later: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._working: dict[K, float] = {}
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._metrics = QueueMetrics()

    def add(self, key: K, delay: float = 0.0) -> None:
        """See to it that the key is due within `delay` seconds."""
        self._metrics.adds += 1
        self._schedule(key, self._clock() + max(delay, 0.0))

    def take(self, limit: int) -> list[K]:
        """At most `limit` keys that are due, longest due first; for each, `done` is to follow."""
        now = self._clock()
        self._ripen(now)
        found: list[K] = []
        while self._ready and len(found) < limit:
            key = self._ready.popleft()
            self._metrics.latency.observe(now - self._ready_since.pop(key))
            self._working[key] = now
            found.append(key)
        return found

    def done(self, key: K) -> None:
        """Nobody works on the key any more; if it was added in the meantime, it waits again."""
        self._metrics.work.observe(self._clock() - self._working.pop(key))
        again = self._again.pop(key, None)
        if again is not None:
            self._schedule(key, again)

    @contextmanager
    def work(self, limit: int) -> Iterator[list[K]]:
        """Take at most `limit` keys; they are done at the end, however it comes."""
        keys = self.take(limit)
        try:
            yield keys
        finally:
            for key in keys:
                self.done(key)

    def failed(self, key: K) -> int:
        """Try the key again later; returns how often it has failed in a row."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._metrics.retries += 1
        # No limit on all together: keys that fail, of one account, would keep those of others waiting.
        self._schedule(key, self._clock() + self._backoff.delay(count))
        return count

    def succeeded(self, key: K) -> bool:
        """Note that the key could be worked on; returns whether it had failed before."""
        return self._failures.pop(key, None) is not None

    def wait(self) -> float | None:
        """Seconds until a key is due; None: there is none."""
        now = self._clock()
        self._ripen(now)
        if self._ready:
            return 0.0
        return self._heap[0][0] - now if self._heap else None

    def metrics(self) -> QueueMetrics:
        """The measurements until now."""
        self._ripen(self._clock())
        return replace(self._metrics, depth=len(self._ready), waiting=len(self._later) + len(self._again))

    def _schedule(self, key: K, at: float) -> None:
        if key in self._working:
            self._again[key] = min(at, self._again.get(key, at))
        elif key not in self._ready_since and self._later.get(key, at + 1) > at:
            self._later[key] = at
            heapq.heappush(self._heap, (at, next(self._numbers), key))

    def _ripen(self, now: float) -> None:
        """Let those wait no longer that are due; the heap's first entry is a valid one then."""
        while self._heap and (
            self._heap[0][0] <= now or self._later.get(self._heap[0][2]) != self._heap[0][0]
        ):
            at, _, key = heapq.heappop(self._heap)
            if self._later.get(key) == at:
                del self._later[key]
                self._ready.append(key)
                self._ready_since[key] = at
