# SPDX-License-Identifier: Apache-2.0
"""Looking at everything now and then, also where there is always something else to do."""

from __future__ import annotations

import time
from collections.abc import Callable


class Resync:
    """When a whole look is due: so many seconds after the last one was begun; at once before the first."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._due = clock()

    @property
    def left(self) -> float:
        """Seconds until then; zero when it is due."""
        return max(0.0, self._due - self._clock())

    def begin(self) -> None:
        """All is looked at now."""
        self._due = self._clock() + self._seconds
