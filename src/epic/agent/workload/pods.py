# SPDX-License-Identifier: Apache-2.0
"""Delivery past the stack: which endpoints are behind an interface of their own. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from epic.agent.netlink.objects import Link, Netlink
from epic.bpf.dataplane import Address, Dataplane
from epic.errors import EpicError

log = logging.getLogger(__name__)

_KINDS = {"veth", "netkit"}


class Pods:
    """The interfaces of pods, and the programs on them."""

    def __init__(self, dataplane: Dataplane, netlink: Netlink) -> None:
        self._dataplane = dataplane
        self._netlink = netlink
        self._known: dict[Address, str | None] = {}
        self._attached: dict[str, Link | None] = {}
        self._last_logged: dict[str, str] = {}

    @property
    def attached(self) -> bool:
        """Whether there are programs on any."""
        return bool(self._attached)

    def start(self, interfaces: Iterable[str]) -> None:
        """These were in use by an earlier agent."""
        self._attached = dict.fromkeys(interfaces)

    def forget(self) -> None:
        """Routes or links changed: endpoints may be elsewhere."""
        self._known.clear()

    def find(self, addresses: Iterable[Address], links: Mapping[str, Link]) -> dict[Address, str]:
        """The interfaces of those that have one, with programs on them."""
        wanted = set(addresses)
        self._known = {address: name for address, name in self._known.items() if address in wanted}
        for address in wanted - self._known.keys():
            name = self._netlink.delivery(address)
            link = links.get(name) if name is not None else None
            self._known[address] = name if link is not None and link.kind in _KINDS else None
        used = {name for name in self._known.values() if name is not None}
        ready = {name for name in used if self._attach(name, links[name])}
        return {a: name for a, name in self._known.items() if name is not None and name in ready}

    def check(self, links: Mapping[str, Link], *, everywhere: bool, filters: Collection[int]) -> bool:
        """Whether programs are gone: with an interface that is another one now, or taken off by others.

        Those of the interfaces with these indexes are looked at, or all of them.
        """
        gone = [name for name, link in self._attached.items() if self._is_gone(name, link, links)]
        for name, link in self._attached.items():
            if link is not None and name not in gone and (everywhere or link.index in filters):
                hooks = {hook for hook, _ in self._netlink.filters(link.index)}
                gone += [] if "ingress" in hooks else [name]
        for name in gone:
            self._attached[name] = None
        return bool(gone)

    @staticmethod
    def _is_gone(name: str, link: Link | None, links: Mapping[str, Link]) -> bool:
        return link is None or name not in links or links[name].index != link.index

    def release(self, used: Iterable[str]) -> None:
        """Take the programs off all others."""
        for name in self._attached.keys() - set(used):
            self._try(name, lambda name=name: self._dataplane.detach_pod(name))  # type: ignore[misc]
            del self._attached[name]

    def _attach(self, name: str, link: Link) -> bool:
        known = self._attached.get(name)
        if known is not None and known.index == link.index:
            return True
        fine = self._try(name, lambda: self._dataplane.attach_pod(name))
        if fine:
            self._attached[name] = link
        return fine

    def _try(self, name: str, call: Callable[[], None]) -> bool:
        try:
            call()
        except (EpicError, OSError) as error:
            if self._last_logged.get(name) != str(error):
                log.warning("pods behind %s are delivered to by the stack: %s", name, error)
            self._last_logged[name] = str(error)
            return False
        return True
