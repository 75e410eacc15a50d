# SPDX-License-Identifier: Apache-2.0
"""How much of the agent's time one who asks may take."""

from __future__ import annotations

import asyncio


class Pace:
    """A bucket of `burst` units that fills again by `rate` a second."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = burst
        self._looked = 0.0

    async def take(self, units: float) -> None:
        """Take them, and wait until they were there."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now - self._looked) * self._rate)
        self._looked = now
        # Who comes while others wait waits longer than they.
        self._left -= units
        if self._left < 0:
            await asyncio.sleep(-self._left / self._rate)
