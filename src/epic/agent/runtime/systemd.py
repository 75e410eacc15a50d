# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the service does (sd_notify)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

HEARTBEAT_SECONDS = 2.0
"""How often at least the agent says that it lives; WatchdogSec of its unit is several times that."""


def notify(state: str, flags: int = 0) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`, ...) to systemd, when it started us; waits until it has room."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall(state.encode(), flags)


def beat() -> None:
    """The agent's most important work has been done just now."""
    # While systemd is too busy to hear of it nothing waits for that; the next one comes soon.
    with suppress(OSError):
        notify("WATCHDOG=1", socket.MSG_DONTWAIT)


async def beat_during(work: Coroutine[object, object, T], patience: float) -> T:
    """What comes of the work. Beats until it is done, but not for more than `patience` seconds.

    For work that waits for the kernel: while that is held up for all, a new agent would wait as long.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    late = loop.time() + patience
    try:
        while not task.done():
            if loop.time() < late:
                beat()
            await asyncio.wait([task], timeout=HEARTBEAT_SECONDS)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return task.result()


async def keep_beating() -> None:
    """Say so while the event loop runs, until cancelled."""
    while True:
        beat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
