# SPDX-License-Identifier: Apache-2.0
"""Blocking work on a thread of its own: netlink and bpf calls must not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One thread; calls run one after the other, always on it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """The call's result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def close(self) -> None:
        """Wait for the call that runs; no more are taken."""
        self._pool.shutdown(wait=True, cancel_futures=True)
