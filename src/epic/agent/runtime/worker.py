# SPDX-License-Identifier: Apache-2.0
"""Blocking work on a thread of its own: netlink and bpf calls must not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One thread; calls run one after the other, always on it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """The call's result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    async def repeat(self, step: Callable[[], bool]) -> None:
        """Call it until it says that nothing is left; other calls come in between."""
        while await self.run(step):
            pass

    async def collect(self, items: Iterator[T], at_once: int = 1) -> list[T]:
        """All of these, so many with each call; other calls come in between."""
        found: list[T] = []
        while part := await self.run(lambda: list(islice(items, at_once))):
            found += part
        return found

    def close(self) -> None:
        """Wait for the call that runs; no more are taken."""
        self._pool.shutdown(wait=True, cancel_futures=True)
