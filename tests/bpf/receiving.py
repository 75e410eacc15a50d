# SPDX-License-Identifier: Apache-2.0
"""Good data packets as they reach either end."""

from __future__ import annotations

from typing import Any

import pytest
from frames import ALL, ETHER, Families, gue, outer
from host import GATEWAY, WORKLOAD
from scapy.layers.inet import TCP
from scapy.packet import Packet

ENDS = pytest.mark.parametrize("end", [GATEWAY, WORKLOAD], ids=["gateway", "workload"])
OVER = pytest.mark.parametrize("families", [ALL[0], ALL[3]], ids=["IPv4", "IPv6"])


def inner_of(end: str, families: Families) -> Packet:
    if end == GATEWAY:
        return families.reply() / TCP(flags="SA") / b"reply"
    return families.request() / TCP(flags="S") / b"request"


def outer_of(end: str, families: Families, **changes: Any) -> Packet:
    if end == GATEWAY:
        return outer(families.nat, families.epic, **changes)
    return outer(families.epic, families.node, **changes)


def frame_of(end: str, families: Families, inner: Packet | None = None, **changes: Any) -> Packet:
    """A good frame for that end, with changes to the GUE header after signing."""
    inner = inner or inner_of(end, families)
    return outer_of(end, families) / gue(inner, **changes) / inner


def unwrapped(inner: Packet) -> bytes:
    return bytes(ETHER / inner)
