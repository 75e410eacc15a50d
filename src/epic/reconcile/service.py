# SPDX-License-Identifier: Apache-2.0
"""The service of a reconciler: woken by the store's changes, by others, and by time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

from epic.store.interface import Change, Store
from epic.workqueue.metrics import QueueMetrics
from epic.workqueue.threads import ThreadPool

_WAIT_MAX = 5.0


class Reconciler(Protocol):
    """What is called in a thread, by one at a time."""

    def begin(self) -> int:
        """Read everything; returns the revision from which changes are to be taken in."""

    def take_in(self, changes: list[Change]) -> None:
        """Note what has changed in the store."""

    def work(self) -> None:
        """Do some of what is due."""

    def wait(self) -> float | None:
        """Seconds until something is due; None: nothing is."""

    def measure(self) -> QueueMetrics:
        """How much is due, and how it goes."""


class ReconcilerService:
    """Runs a `Reconciler` in a thread of its own, one turn after the other."""

    def __init__(self, store: Store, reconciler: Reconciler) -> None:
        self._store = store
        self._reconciler = reconciler
        self._thread = ThreadPool(type(reconciler).__name__, 1)
        self._changes: list[Change] = []
        self._wake = asyncio.Event()
        self._ended = time.monotonic()
        self.measured = QueueMetrics()
        """As it was at the end of the last turn."""

    @property
    def turn_age(self) -> float:
        """Seconds since the last turn ended, or since the beginning: a turn that hangs makes it grow."""
        return time.monotonic() - self._ended

    def wake(self) -> None:
        """Let it look now: something has come to be due. To be called in the event loop."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; raises what the store raises."""
        self._changes.clear()
        revision = await self._thread.run(self._reconciler.begin)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(revision))
            tasks.create_task(self._work())

    async def _watch(self, revision: int) -> None:
        async for change in self._store.watch(revision):
            self._changes.append(change)
            self._wake.set()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            changes, self._changes = self._changes, []
            wait = await self._thread.run(self._turn, changes)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_WAIT_MAX if wait is None else wait, _WAIT_MAX)):
                    await self._wake.wait()

    def _turn(self, changes: list[Change]) -> float | None:
        self._reconciler.take_in(changes)
        self._reconciler.work()
        self.measured = self._reconciler.measure()
        self._ended = time.monotonic()
        return self._reconciler.wait()
