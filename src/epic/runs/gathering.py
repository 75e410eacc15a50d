# SPDX-License-Identifier: Apache-2.0
"""Pure: gateways that are made one upon the other share runs. Times are seconds of one clock."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

QUIET_SECONDS = 0.3
"""Gateways that come faster than this are a burst; it is over when none has come for so long."""
LONGEST_SECONDS = 2.0
"""How long a node that could have a run waits for the end of a burst."""


class Gathering:
    """Has a node whose run has just ended wait for the rest of a burst; `gateways` are known from before.

    A run takes all that is there when it begins, and what comes then waits for its end. A node that is idle
    begins at once: one gateway alone waits for nobody.
    """

    def __init__(self, gateways: Iterable[Hashable] = ()) -> None:
        self._known = set(gateways)
        self._last = self._before = -math.inf
        self._ended: dict[str, float] = {}

    def hear(self, gateway: Hashable, now: float, *, exists: bool) -> None:
        """Something was written about a gateway; it exists, or does not any more."""
        if not exists:
            self._known.discard(gateway)
        elif gateway not in self._known:
            self._known.add(gateway)
            self._before, self._last = self._last, now

    def end(self, node: str, now: float) -> None:
        """The node's run has ended."""
        self._ended = {n: at for n, at in self._ended.items() if now - at < LONGEST_SECONDS}
        self._ended[node] = now

    def wait(self, node: str, now: float) -> float:
        """For how many seconds the node's next run is not to begin; 0: it may."""
        if self._last > self._before + QUIET_SECONDS:
            return 0.0
        longest = self._ended.get(node, -math.inf) + LONGEST_SECONDS
        return max(0.0, min(self._last + QUIET_SECONDS, longest) - now)
