# SPDX-License-Identifier: Apache-2.0
"""Logging what others do: however often they do it, the log keeps room for the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 20
_SECONDS = 5.0
_REMINDER_SECONDS = 600.0


class LogRate:
    """Logs some messages at once, then one every few seconds that says how many were left out before it."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._left = float(_BURST)
        self._looked = clock()
        self._omitted = 0

    def warning(self, message: str, *args: object, exc_info: Exception | None = None) -> bool:
        """Log it, or count it; whether it was logged."""
        return self._log_or_count(logging.WARNING, message, args, exc_info)

    def info(self, message: str, *args: object) -> bool:
        """The same, for what is nothing to worry about."""
        return self._log_or_count(logging.INFO, message, args, None)

    def _log_or_count(
        self, level: int, message: str, args: tuple[object, ...], exc_info: Exception | None
    ) -> bool:
        now = self._clock()
        self._left = min(_BURST, self._left + (now - self._looked) / _SECONDS)
        self._looked = now
        if self._left < 1:
            self._omitted += 1
            return False
        self._left -= 1
        if self._omitted:
            message, args = f"{message} (%d like it were left out)", (*args, self._omitted)
            self._omitted = 0
        self._log.log(level, message, *args, exc_info=exc_info)
        return True


class LogOnChange:
    """Warnings by subject: one is logged when it says something else than the last of its subject.

    What stays the same is logged again every ten minutes while it is met, with the number in between.
    Subjects are few: they are kept for ever. Methods may be called from any thread.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, _Logged] = {}

    def warning(self, subject: str, message: str) -> None:
        """Log it, or count it."""
        with self._lock:
            now, last = self._clock(), self._last.get(subject)
            if last is not None and last.message == message and now - last.at < _REMINDER_SECONDS:
                last.omitted += 1
                return
            self._last[subject] = _Logged(message, now)
        omitted = f" ({last.omitted} like it were left out)" if last is not None and last.omitted else ""
        self._log.warning("%s%s", message, omitted)


@dataclass
class _Logged:
    message: str
    at: float
    omitted: int = 0
