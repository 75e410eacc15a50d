# SPDX-License-Identifier: Apache-2.0
"""Changes of the router's next hops under load."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from types import TracebackType

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


class NextHops:
    """`with NextHops(bed, [0, 1], seed) as hops:` random sets of those announced, one every PAUSE seconds."""

    def __init__(self, bed: Bed, announced: Iterable[int], seed: int) -> None:
        self._bed, self._announced, self._chosen = bed, set(announced), random.Random(seed)
        self._now: set[int] = set()
        self._lock, self._ended, self._pool = Lock(), Event(), ThreadPoolExecutor(1)

    def __enter__(self) -> NextHops:
        self._changing = self._pool.submit(self._change)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.shutdown()
        self._changing.result()

    def announce(self, index: int) -> None:
        """The node is one of them from now on."""
        with self._lock:
            self._announced.add(index)
            self._route()

    def withdraw(self, index: int) -> None:
        """It is none of them any more."""
        with self._lock:
            self._announced.remove(index)
            self._route()

    def _change(self) -> None:
        while not self._ended.wait(PAUSE):
            with self._lock:
                self._route()

    def _route(self) -> None:
        self._now = random_hops(self._chosen, self._now, sorted(self._announced))
        self._bed.route(self._now)
