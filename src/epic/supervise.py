# SPDX-License-Identifier: Apache-2.0
"""Services that outlive their faults."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from epic.errors import NotWritable

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_HEALTHY_AFTER = 60.0


def is_said_by_store(error: Exception) -> bool:
    """Whether it is nothing but that nothing can be written: the store says so once, for all who meet it."""
    if isinstance(error, ExceptionGroup):
        return error.split(NotWritable)[1] is None
    return isinstance(error, NotWritable)


async def run_apart(service: Callable[[], Awaitable[None]]) -> None:
    """Run the service in a task of its own, so that a fault of it never hides that the caller is cancelled.

    A group of tasks that is cancelled while one of its tasks fails tells of the failure alone; and it cancels
    the task that it is in by itself: only from outside the two can be told apart.
    """
    own = asyncio.current_task()
    assert own is not None  # noqa: S101 - coroutines run in tasks
    before = own.cancelling()
    try:
        await asyncio.ensure_future(service())
    except Exception as error:
        if own.cancelling() > before:
            log.warning("a service failed as it was ended: %s: %s", type(error).__name__, error)
            raise asyncio.CancelledError from error
        raise


class TellOnce:
    """Logs a fault when it comes and when it has gone, not each time it is met."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._told: dict[str, str] = {}

    def fault(self, what: str, error: Exception) -> None:
        """`what` could not be done."""
        if is_said_by_store(error):
            return
        if self._told.get(what) != repr(error):
            self._told[what] = repr(error)
            self._log.warning("%s: %s; it is tried again", what, error, exc_info=error)

    def success(self, what: str) -> None:
        """`what` could be done."""
        if self._told.pop(what, None) is not None:
            self._log.info("%s: it goes well again", what)


async def keep_running(
    name: str,
    service: Callable[[], Awaitable[None]],
    *,
    first_delay: float = _FIRST_DELAY,
    failures: Counter[str] | None = None,
) -> None:
    """Run the service until cancelled; after a fault it begins again, ever later while it keeps failing.

    A fault that repeats is told once; that nothing can be written is said by the store, for all. `failures`
    counts how often it began again, by name.
    """
    delay, told = first_delay, ""
    while True:
        began = time.monotonic()
        try:
            await run_apart(service)
            raise RuntimeError("it ended by itself")
        except Exception as error:
            if failures is not None:
                failures[name] += 1
            if time.monotonic() - began > _HEALTHY_AFTER:
                delay, told = first_delay, ""
            if told != repr(error) and not is_said_by_store(error):
                log.exception("%s: begins again in %.1f s", name, delay)
                told = repr(error)
        await asyncio.sleep(delay)
        delay = min(delay * 2, _LONGEST_DELAY)
