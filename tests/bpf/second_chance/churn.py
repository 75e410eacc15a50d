# SPDX-License-Identifier: Apache-2.0
"""Changes of the router's next hops under load."""

from __future__ import annotations

import random
import time

from bed import NODES, Bed

PAUSE = 0.7


def random_hops(chosen: random.Random, before: set[int], among: list[int]) -> set[int]:
    """Another set of them than before."""
    while True:
        hops = {index for index in among if chosen.random() < 0.5}
        if hops and hops != before:
            return hops


def churn(bed: Bed, seconds: float, seed: int, among: list[int] | None = None) -> int:
    """Random sets of next hops, one every PAUSE seconds; how many."""
    chosen, hops, changes = random.Random(seed), set(range(NODES)), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hops = random_hops(chosen, hops, among or list(range(NODES)))
        bed.route(hops)
        changes += 1
        time.sleep(PAUSE)
    return changes
