# SPDX-License-Identifier: Apache-2.0
"""Runs reconcilers in an event loop: each over its own queue, some keys side by side, each failing alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from epic.workqueue.limits import DEFAULT_BACKOFF, Backoff, TokenBucket
from epic.workqueue.metrics import QueueMetrics
from epic.workqueue.queue import WorkQueue

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

RETRIES_PER_SECOND = 10.0
RETRIES_AT_ONCE = 100


class Clock(Protocol):
    """Time that passes by itself, or in tests when they say so."""

    def now(self) -> float:
        """Seconds since some moment."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Return when the event is set, or after so many seconds (None: never before that)."""


class SystemClock:
    """Time as it passes."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Return when the event is set, or after so many seconds (None: never before that)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()


@dataclass(frozen=True)
class Reconciler(Generic[K]):
    """What is done for a key: from what is to what is wanted, whoever added the key and why.

    `reconcile` returns the seconds after which to look again without a reason, or None. It is given up
    after `timeout` seconds, which counts as a failure.
    """

    name: str
    reconcile: Callable[[K], Awaitable[float | None]]
    workers: int = 1
    timeout: float = 60.0
    backoff: Backoff = DEFAULT_BACKOFF


class Runner(Generic[K]):
    """One reconciler and its queue; to be used from one event loop."""

    def __init__(self, reconciler: Reconciler[K], clock: Clock | None = None) -> None:
        self._reconciler = reconciler
        self._clock = clock if clock is not None else SystemClock()
        retries = TokenBucket(RETRIES_PER_SECOND, RETRIES_AT_ONCE)
        self._queue: WorkQueue[K] = WorkQueue(self._clock.now, reconciler.backoff, retries)
        self._wake = asyncio.Event()
        self._busy = 0
        self._ending = False
        self._told: dict[K, str] = {}

    def add(self, key: K, delay: float = 0.0) -> None:
        """See to it that the key is looked at within `delay` seconds; ignored after `shut_down`."""
        if not self._ending:
            self._queue.add(key, delay)
            self._wake.set()

    def shut_down(self) -> None:
        """Let `run` end when what is being worked on is done; what waits is left."""
        self._ending = True
        self._wake.set()

    def metrics(self) -> QueueMetrics:
        """How much waits, how long, and how it goes."""
        return self._queue.metrics()

    async def run(self) -> None:
        """Work until cancelled or shut down. Keys that were worked on when it was cancelled wait again."""
        async with asyncio.TaskGroup() as tasks:
            while not self._ending:
                self._wake.clear()
                free = self._reconciler.workers - self._busy
                for key in self._queue.take(free):
                    self._busy += 1
                    tasks.create_task(self._work(key), name=f"{self._reconciler.name} {key}")
                full = self._busy == self._reconciler.workers
                await self._clock.wait(self._wake, None if full else self._queue.wait())

    async def _work(self, key: K) -> None:
        try:
            async with asyncio.timeout(self._reconciler.timeout):
                again = await self._reconciler.reconcile(key)
        except Exception as error:  # a fault with one key must not hold up the others
            self._note_failure(key, error)
        except asyncio.CancelledError:
            self._queue.add(key)
            raise
        else:
            self._note_success(key, again)
        finally:
            self._busy -= 1
            self._queue.done(key)
            self._wake.set()

    def _note_failure(self, key: K, error: Exception) -> None:
        self._queue.failed(key)
        if self._told.get(key) != repr(error):
            self._told[key] = repr(error)
            reason = "it took too long" if isinstance(error, TimeoutError) else error
            log.warning("%s %s: %s; it is tried again", self._reconciler.name, key, reason, exc_info=error)

    def _note_success(self, key: K, again: float | None) -> None:
        if self._queue.succeeded(key):
            self._told.pop(key, None)
            log.info("%s %s: it went well again", self._reconciler.name, key)
        if again is not None:
            self._queue.add(key, again)
