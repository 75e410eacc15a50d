# SPDX-License-Identifier: Apache-2.0
"""When this process did not get to run."""

from __future__ import annotations

import asyncio
import time

BEAT, PAUSE = 0.01, 0.02


class Pauses:
    """Of its event loop, as a beat that comes late shows them."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self._over: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """Without end."""
        while True:
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - self._beat > PAUSE + BEAT:
                self._over.append((self._beat + BEAT, now))
            self._beat = now

    def between(self, begun: float, ended: float) -> float:
        """Seconds of pauses in that time, which ends now."""
        # The beat that is late by now shows a pause only when it is over.
        pauses = [*self._over, (self._beat + BEAT, ended)]
        return sum(max(0.0, min(ended, last) - max(begun, first)) for first, last in pauses)
