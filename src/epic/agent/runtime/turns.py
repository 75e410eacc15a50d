# SPDX-License-Identifier: Apache-2.0
"""Long loops on the event loop that do not hold it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_PART = 128


async def in_turns(items: Iterable[T], part: int = _PART) -> AsyncIterator[T]:
    """These; after so many, whoever waits has his turn. They must not change meanwhile."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % part == 0:
            await asyncio.sleep(0)


class LoopTurns:
    """Work of many steps: whoever waits has his turn after so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def parts(self, items: Iterable[T]) -> Iterator[list[T]]:
        """These, so many at a time as may be done at once."""
        rest = iter(items)
        while part := list(islice(rest, self._most)):
            yield part

    async def spend(self, steps: int) -> None:
        """So many were done."""
        self._left -= steps
        if self._left <= 0:
            self._left = self._most
            await asyncio.sleep(0)
