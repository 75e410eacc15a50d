# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the service does (sd_notify)."""

from __future__ import annotations

import asyncio
import os
import socket

HEARTBEAT_SECONDS = 2.0
"""How often at least the agent says that it lives; WatchdogSec of its unit is several times that."""


def notify(state: str) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`, `WATCHDOG=1`, ...) to systemd, when it started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall(state.encode())


def beat() -> None:
    """The agent's most important work has been done just now."""
    notify("WATCHDOG=1")


async def keep_beating() -> None:
    """Say so while the event loop runs, until cancelled."""
    while True:
        beat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
