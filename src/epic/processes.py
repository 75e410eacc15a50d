# SPDX-License-Identifier: Apache-2.0
"""Processes that do not outlive those who wait for them."""

from __future__ import annotations

import asyncio


async def communicate(process: asyncio.subprocess.Process, given: bytes | None = None) -> tuple[bytes, bytes]:
    """Its output and its errors once it has ended; what ends the waiting before ends the process, too."""
    try:
        return await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            # its pipes are to be closed, too, before the loop may be
            await process.communicate()
