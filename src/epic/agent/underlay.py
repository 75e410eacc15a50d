"""The underlay interface: the tunnel programs stay attached to it, whatever happens to it."""

from __future__ import annotations

import logging

from epic.agent.netlink import Netlink
from epic.bpf.dataplane import Dataplane, Role

log = logging.getLogger(__name__)


class Underlay:
    """Follows one interface. Methods block."""

    def __init__(self, dataplane: Dataplane, netlink: Netlink, interface: str, role: Role) -> None:
        self._dataplane = dataplane
        self._netlink = netlink
        self._interface = interface
        self._role = role
        self._link: tuple[int, int] | None = None
        self._missing = False

    @property
    def mtu(self) -> int | None:
        """Its MTU in bytes; None while it is missing."""
        return None if self._link is None else self._link[1]

    def follow(self) -> bool:
        """Attach if it is new; True when it was made anew or has another MTU, which concerns all tunnels."""
        found = self._netlink.identity(self._interface)
        changed = found is not None and found != self._link
        if changed:
            self._dataplane.attach_underlay(self._interface, self._role)
        if found is None and not self._missing:
            log.error("there is no underlay interface %s; tunnels wait for it", self._interface)
        self._link, self._missing = found, found is None
        return changed
