# SPDX-License-Identifier: Apache-2.0
"""How far ends of tunnels are reached, asked of the kernel once and again only after changes."""

from __future__ import annotations

from epic.agent.netlink.objects import Netlink, ResolvedRoute
from epic.bpf.dataplane import Address, Route

_MOST = 16384
"""A workload node may have one far end after the other."""


class RouteCache:
    """The kernel's answers by far end and own address. Methods block."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._known: dict[tuple[Address, Address | None], ResolvedRoute | None] = {}

    def forget(self) -> None:
        """Routes, addresses or links changed."""
        self._known.clear()

    def resolve(self, far: Address, local: Address | None = None) -> ResolvedRoute | None:
        """How packets to `far` leave, from `local` unless it is None; None when they cannot."""
        key = far, local
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = self._netlink.resolve(far, local)
        return self._known[key]


def program_route(far: Address, resolved: ResolvedRoute | None) -> Route | None:
    """What the programs are told; nothing when the kernel is to choose for each packet."""
    return (
        None if resolved is None or not resolved.single else Route(far, resolved.interface, resolved.next_hop)
    )
