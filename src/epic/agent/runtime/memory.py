# SPDX-License-Identifier: Apache-2.0
"""Giving memory back that large changes took for a moment; the allocator of C keeps it otherwise."""

from __future__ import annotations

import asyncio
import ctypes

_SECONDS = 20.0


async def trim_periodically() -> None:
    """Do so now and then until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(_SECONDS)
        # Takes some milliseconds; on a thread, for nothing waits for it.
        await asyncio.to_thread(trim, 0)
