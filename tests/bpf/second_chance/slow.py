# SPDX-License-Identifier: Apache-2.0
"""Requests that took long: what held each of them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

SLOW = 0.25
_SHARE = 0.5
"""Of the time of a request: what takes more of it holds it up."""


@dataclass(frozen=True)
class SlowRequest:
    """As the load describes it (client_load/tally.py), and how long something else had the processors."""

    kind: str
    begun: float
    asked: float
    ended: float
    lost: int
    upstream: int | None
    waited: float
    """Seconds in which an Envoy or the backends were ready to run, and did not."""

    @property
    def is_explained(self) -> bool:
        """Whether it would not have been slow if all had run that were ready to; nothing explains a loss."""
        return self.lost <= 0 and self.ended - self.begun - self.waited <= SLOW

    @property
    def cause(self) -> str:
        """Which layer held it up, as far as is seen."""
        took = self.ended - self.begun
        opening = " opening its connection" if self.asked - self.begun > took * _SHARE else ""
        if self.lost > 0:
            return f"packets to the gateway were lost{opening}"
        if opening:
            return f"no packet to the gateway was lost{opening}"
        if self.upstream is not None and self.upstream / 1000 > took * _SHARE:
            return "between gateway and backend"
        return "at the gateway, or its answer was lost"


def explain(
    told: Iterable[dict[str, Any]], waited: Callable[[float, float], float]
) -> tuple[list[SlowRequest], Counter[str]]:
    """Those that are not explained by processors that others had, and the causes of all that are."""
    found = [SlowRequest(**each, waited=waited(each["begun"], each["ended"])) for each in told]
    slow = [each for each in found if not each.is_explained]
    return slow, Counter(f"{each.kind}: {each.cause}" for each in slow)
