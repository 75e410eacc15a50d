# SPDX-License-Identifier: Apache-2.0
"""Long loops on the event loop that do not hold it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

_PART = 128


async def in_turns(items: Iterable[T], part: int = _PART) -> AsyncIterator[T]:
    """These; after so many, whoever waits has his turn. They must not change meanwhile."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % part == 0:
            await asyncio.sleep(0)
