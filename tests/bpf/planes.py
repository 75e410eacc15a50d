# SPDX-License-Identifier: Apache-2.0
"""One dataplane in a namespace with an underlay and an instance's interface; see the fixture `plane`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from epic.bpf.dataplane import Tunnel

INSIDE, PUBLIC, UNDERLAY = map(IPv4Address, ("100.64.0.1", "203.0.113.1", "172.30.2.2"))
INSIDE6, ENDPOINT6 = IPv6Address("fd65::1"), IPv6Address("fd00::1")
INSTANCE = "epg644000010000"


def tunnel(id_: int, **changes: Any) -> Tunnel:
    """A workload node's end."""
    fields: dict[str, Any] = {
        "id": id_,
        "service": 3,
        "inside": INSIDE,
        "inside6": INSIDE6,
        "local": UNDERLAY,
        "remote": None,
        "remote_port": 6080,
        "underlay": "up0",
        "interface": None,
        "keys": (bytes(16), None),
        "active": 0,
    }
    return Tunnel(**(fields | changes))
