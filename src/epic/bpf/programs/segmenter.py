# SPDX-License-Identifier: Apache-2.0
"""A pair of interfaces that cuts GSO packets up: a checksum in front of the header that is copied into all
segments cannot be right in each of them.
"""

from __future__ import annotations

from contextlib import suppress

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

ENTRY, EXIT = "epic-seg0", "epic-seg1"
_MTU = 65535
_NO_ADDRESS = 1
"""IN6_ADDR_GEN_MODE_NONE"""


def ensure() -> int:
    """Index of the interface that GSO packets go out by; they come in by EXIT in pieces."""
    with IPRoute() as netlink:
        if not netlink.link_lookup(ifname=ENTRY):
            peer = {"ifname": EXIT, "mtu": _MTU}
            netlink.link("add", ifname=ENTRY, kind="veth", peer=peer, mtu=_MTU, gso_max_segs=1)
        for name in (ENTRY, EXIT):
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link(
                "set",
                index=index,
                state="up",
                IFLA_AF_SPEC={
                    "attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS]]}]]
                },
            )
        return int(netlink.link_lookup(ifname=ENTRY)[0])


def remove() -> None:
    """Remove the pair."""
    with IPRoute() as netlink, suppress(NetlinkError):
        netlink.link("del", ifname=ENTRY)
