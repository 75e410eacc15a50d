"""Telling systemd how the service does (sd_notify)."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`, ...) to systemd, when it started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall(state.encode())
