# SPDX-License-Identifier: Apache-2.0
"""Rotates the keys of tunnels: looks every few seconds which steps may be taken."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import partial

from epic.api.tunnel.rotating import advance
from epic.live import Live
from epic.rotation import Policy
from epic.store.interface import Store
from epic.workqueue.threads import ThreadPool

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


class Rotator:
    """The service."""

    def __init__(self, store: Store, live: Live, policy: Policy, pause: float = _LOOK_SECONDS) -> None:
        self._store = store
        self._live = live
        self._policy = policy
        self._pause = pause
        self._thread = ThreadPool("keys", 1)

    async def run(self) -> None:
        """Rotate until cancelled."""
        pause = timedelta(seconds=self._pause)
        step = partial(advance, self._store, self._live, self._policy, pause=pause)
        while True:
            await asyncio.sleep(self._pause)
            done = await self._thread.run(step)
            for taken, count in done.items():
                log.info("keys of %d tunnels: %s", count, taken.value)
