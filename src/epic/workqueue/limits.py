# SPDX-License-Identifier: Apache-2.0
"""How soon what failed is tried again: each key ever later, and all together not too often."""

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


class TokenBucket:
    """`rate` times a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def reserve(self, now: float) -> float:
        """Take the next turn; seconds until it comes."""
        refilled = max(0.0, now - self._at) * self._rate
        self._tokens = min(self._tokens + refilled, float(self._burst)) - 1.0
        self._at = max(now, self._at)
        return max(0.0, -self._tokens / self._rate)
