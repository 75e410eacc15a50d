# SPDX-License-Identifier: Apache-2.0
"""Far ends of tunnels that moved: the routes there are found soon, by one task however many they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from itertools import islice

from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.worker import Worker

log = logging.getLogger(__name__)

_AT_ONCE = 128
"""Tunnels; with so many the kernel's thread is held for some milliseconds."""


class Moves:
    """Calls `move` with ids of tunnels on the worker's thread; who waits is there once."""

    def __init__(self, worker: Worker, move: Callable[[Collection[int]], None]) -> None:
        self._worker = worker
        self._move = move
        self._ids: dict[int, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._troubles = LogOnce(log)

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps far ends from being followed now, a line."""
        return self._troubles.problems

    def add(self, ids: Collection[int]) -> None:
        """The far ends of these are elsewhere."""
        self._ids.update(dict.fromkeys(ids))
        if self._ids and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="move")

    async def _run(self) -> None:
        failed: dict[int, None] = {}
        trouble = ""
        while self._ids:
            part = list(islice(self._ids, _AT_ONCE))
            for id_ in part:
                del self._ids[id_]
            try:
                await self._worker.run(self._move, part)
            except Exception as error:
                # Whatever it is, it must not keep the others from being followed.
                log.debug("far ends that moved cannot be followed", exc_info=error)
                failed.update(dict.fromkeys(part))
                trouble = f"far ends of tunnels that moved cannot be followed: {error!r}"
        self._troubles.report("move", trouble)
        # They are tried again with the next that move.
        self._ids.update(failed)
