# SPDX-License-Identifier: Apache-2.0
"""The number that hellos bear: the other end takes each only once, and none below the last."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from epic.agent.runtime.files import write_atomically

log = logging.getLogger(__name__)

FILE = "counter"

RESERVE_NS = 600 * 10**9
"""While the numbers follow the clock, so much of it is written down in advance."""

RESERVE_AHEAD = 10**6
"""While they are ahead of the clock they rise by one each, and so many are written down in advance."""

_RETRY_SECONDS = 10.0


class HelloCounter:
    """A number that rises for ever: with the clock, and never back with it.

    What may be used is written down in advance, so that a restart goes on above it. However often an agent
    restarts, its numbers are ahead of the clock by no more than what is written down at once. A disk that
    takes nothing stops no hello: the numbers rise with the clock all the same.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._reserved = self._last = _read(self._path)
        self._trouble = ""
        self._retry_at = 0.0

    def next(self, now_ns: int) -> int:
        """The next number; `now_ns` is the time of day."""
        self._last = max(self._last + 1, now_ns)
        if self._last > self._reserved:
            self._reserve(self._last + (RESERVE_AHEAD if self._last > now_ns else RESERVE_NS))
        return self._last

    def _reserve(self, number: int) -> None:
        if time.monotonic() < self._retry_at:
            return
        trouble = ""
        try:
            write_atomically(self._path, str(number).encode())
            self._reserved = number
            self._retry_at = 0.0
        except OSError as error:
            trouble = f"{self._path} cannot be written: {error}; a clock that is set back would stop hellos"
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        if trouble and trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        log.error("%s cannot be read (%s); going on with the clock", path, error)
        return 0
