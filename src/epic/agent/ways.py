"""How far ends of tunnels are reached, asked of the kernel once and again only after changes."""

from __future__ import annotations

from epic.agent.netlink import Netlink, Way
from epic.bpf.dataplane import Address, Route


class Ways:
    """The kernel's answers by far end and own address. Methods block."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._known: dict[tuple[Address, Address | None], Way | None] = {}

    def forget(self) -> None:
        """Routes, addresses or links changed."""
        self._known.clear()

    def to(self, far: Address, local: Address | None = None) -> Way | None:
        """How packets to `far` leave, from `local` unless it is None; None when they cannot."""
        key = far, local
        if key not in self._known:
            self._known[key] = self._netlink.way(far, local)
        return self._known[key]


def route(far: Address, way: Way | None) -> Route | None:
    """What the programs are told; nothing when the kernel is to choose for each packet."""
    return Route(far, way.interface, way.next_hop) if way is not None and way.single else None
