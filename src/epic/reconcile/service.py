# SPDX-License-Identifier: Apache-2.0
"""The service that leads everything through its life: woken by the store's changes and by time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from epic.reconcile.lifecycle import Lifecycle
from epic.store.interface import Change, Store

_WAIT_MAX = 5.0


class LifecycleService:
    """Runs a `Lifecycle` in a thread, one turn after the other."""

    def __init__(self, store: Store, lifecycle: Lifecycle) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._changes: list[Change] = []
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; raises what the store raises."""
        self._changes.clear()
        revision = await asyncio.to_thread(self._lifecycle.begin)
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
            wait = await asyncio.to_thread(self._turn, changes)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_WAIT_MAX if wait is None else wait, _WAIT_MAX)):
                    await self._wake.wait()

    def _turn(self, changes: list[Change]) -> float | None:
        self._lifecycle.take_in(changes)
        self._lifecycle.work()
        return self._lifecycle.queue.wait()
