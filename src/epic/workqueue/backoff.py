# SPDX-License-Identifier: Apache-2.0
"""How soon what failed is tried again: ever later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Doubles from `first` to `longest` seconds."""

    first: float = 0.5
    longest: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.first * 2.0 ** min(failures - 1, 64), self.longest)


DEFAULT_BACKOFF = Backoff()
