# SPDX-License-Identifier: Apache-2.0
"""Warnings about what others do: however often they do it, the log keeps room for the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_BURST = 20
_SECONDS = 5.0


class LogRate:
    """Logs some warnings at once, then one every few seconds that says how many were left out before it."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._left = float(_BURST)
        self._looked = clock()
        self._omitted = 0

    def warning(self, message: str, *args: object) -> None:
        """Log it, or count it."""
        now = self._clock()
        self._left = min(_BURST, self._left + (now - self._looked) / _SECONDS)
        self._looked = now
        if self._left < 1:
            self._omitted += 1
            return
        self._left -= 1
        if self._omitted:
            message, args = f"{message} (%d like it were left out)", (*args, self._omitted)
            self._omitted = 0
        self._log.warning(message, *args)
