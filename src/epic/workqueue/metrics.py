# SPDX-License-Identifier: Apache-2.0
"""What is measured of a queue: how much waits, how long, how long the work takes, what is repeated."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass
class Histogram:
    """Durations in seconds; `counts` has one more entry than `bounds`, for what is longer than all."""

    bounds: tuple[float, ...] = _BOUNDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass
class QueueMetrics:
    """Of one queue, since it began. `depth` are keys that are due, `waiting` those that are due later.

    `latency` is from being due to being taken, `work` from there to being done.
    """

    depth: int = 0
    waiting: int = 0
    adds: int = 0
    retries: int = 0
    latency: Histogram = field(default_factory=Histogram)
    work: Histogram = field(default_factory=Histogram)
