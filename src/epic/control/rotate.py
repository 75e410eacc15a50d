# SPDX-License-Identifier: Apache-2.0
"""Rotates the keys of tunnels: looks every few seconds which steps may be taken."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from epic.api.tunnel.rotating import advance
from epic.live import Live
from epic.rotation import Policy
from epic.store.interface import Store

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


class Rotator:
    """The service."""

    def __init__(self, store: Store, live: Live, policy: Policy, pause: float = _LOOK_SECONDS) -> None:
        self._store = store
        self._live = live
        self._policy = policy
        self._pause = pause

    async def run(self) -> None:
        """Rotate until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            done = await asyncio.to_thread(
                advance, self._store, self._live, self._policy, pause=timedelta(seconds=self._pause)
            )
            for step, count in done.items():
                log.info("keys of %d tunnels: %s", count, step.value)
