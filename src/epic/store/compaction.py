# SPDX-License-Identifier: Apache-2.0
"""Forgetting the store's history, when it is old enough that nobody can be so far behind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from epic.errors import EpicError
from epic.store.object_store import ObjectStore

_log = logging.getLogger(__name__)

KEPT_SECONDS = 300.0
KEPT_REVISIONS = 50_000
_INTERVAL_SECONDS = 30.0


class CompactionPlan:
    """How far to compact: what is younger than `seconds` is kept, but no more than `revisions` revisions."""

    def __init__(self, seconds: float = KEPT_SECONDS, revisions: int = KEPT_REVISIONS) -> None:
        self._seconds = seconds
        self._revisions = revisions
        self._seen: deque[tuple[float, int]] = deque()
        self._compacted = 0

    def next_target(self, at: float, revision: int) -> int | None:
        """The revision to compact to, given the newest one at a time (s); None: nothing new to forget."""
        self._seen.append((at, revision))
        target = revision - self._revisions
        while self._seen and self._seen[0][0] <= at - self._seconds:
            target = max(target, self._seen.popleft()[1])
        if target <= self._compacted:
            return None
        self._compacted = target
        return target


async def keep_compacted(store: ObjectStore) -> None:
    """Forget history for ever. Several processes may do so: each has seen less than there is."""
    plan = CompactionPlan()
    while True:
        try:
            target = plan.next_target(time.monotonic(), await store.revision())
            if target is not None:
                await store.compact(target)
        except EpicError as error:
            _log.warning("history is not compacted for now: %s", error)
        await asyncio.sleep(_INTERVAL_SECONDS)
