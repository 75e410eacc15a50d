# SPDX-License-Identifier: Apache-2.0
"""When each EPIC node was heard of last, in memory: writing that down would be most of what is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Heard:
    """When a node reported last (None: not since this process began), and for how long it has been silent."""

    last: datetime | None
    silence: timedelta


class Heartbeats:
    """Methods may be called from any thread. Who was not heard of yet is silent since the process began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, datetime]] = {}
        self._began = clock()

    def hear(self, node: str, at: datetime) -> None:
        """A node has reported."""
        with self._lock:
            self._last[node] = self._clock(), at

    def of(self, node: str) -> Heard:
        """What is known of a node."""
        with self._lock:
            heard, last = self._last.get(node, (self._began, None))
        return Heard(last, timedelta(seconds=self._clock() - heard))
