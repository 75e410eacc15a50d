# SPDX-License-Identifier: Apache-2.0
"""Threads by subject: what hangs there, such as a disk, keeps nobody waiting but who asks for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ThreadPool:
    """The threads of one subject, `most` at most; they are begun when they are needed.

    The event loop's own executor serves all who know of no better, so nothing is to wait there for a disk.
    """

    def __init__(self, name: str, most: int) -> None:
        self._executor = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """The call's result; who is cancelled waits no more, but the call goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)
