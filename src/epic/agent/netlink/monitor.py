# SPDX-License-Identifier: Apache-2.0
"""Hearing of what changes in the kernel's links, addresses and routes."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from epic.agent.netlink import rtnetlink as rt
from epic.agent.netlink.objects import PROTOCOL

_GROUPS = {
    "link": 0x1,
    "filter": 0x8,
    "ipv4 address": 0x10,
    "ipv4 route": 0x40,
    "ipv4 rule": 0x80,
    "ipv6 address": 0x100,
    "ipv6 route": 0x400,
    "ipv6 rule": 0x40000,
}
_RECEIVE_BYTES = 1 << 17
_RTA_OIF = 4


@dataclass
class Changes:
    """What changed since the last look."""

    links: set[int] = field(default_factory=set)
    """Indexes of interfaces that came, changed or went."""
    addresses: set[int] = field(default_factory=set)
    """Indexes of interfaces that got or lost an address."""
    routes: set[int] = field(default_factory=set)
    """Indexes of interfaces that routes which are not ours lead to; 0: to none, or to several."""
    ours: bool = False
    """A route of ours was removed by others."""
    filters: set[int] = field(default_factory=set)
    """Indexes of interfaces from which a filter or clsact was removed."""
    rules: bool = False
    """A routing rule was removed."""
    lost: bool = False
    """Messages were lost: anything may have changed."""

    def __bool__(self) -> bool:
        return bool(
            self.links
            or self.addresses
            or self.routes
            or self.ours
            or self.filters
            or self.rules
            or self.lost
        )

    def note(self, messages: Iterable[rt.Message], own: Collection[int] = ()) -> None:
        """Take in messages; routes that the sockets `own` removed are no news."""
        for message in messages:
            if message.kind in {rt.NEWLINK, rt.DELLINK}:
                self.links.add(rt.LINK.unpack_from(message.body)[2])
            elif message.kind in {rt.NEWADDR, rt.DELADDR}:
                self.addresses.add(rt.ADDRESS.unpack_from(message.body)[4])
            elif message.kind in {rt.NEWROUTE, rt.DELROUTE}:
                if message.body[5] != PROTOCOL:
                    found = rt.attributes(message.body, rt.ROUTE.size).get(_RTA_OIF, b"")
                    self.routes.add(int.from_bytes(found, "little"))
                elif message.kind == rt.DELROUTE and message.sender not in own:
                    self.ours = True
            elif message.kind in {rt.DELTFILTER, rt.DELQDISC}:
                self.filters.add(rt.FILTER.unpack_from(message.body)[1])
            elif message.kind == rt.DELRULE:
                self.rules = True

    def add(self, other: Changes) -> None:
        """Take in what another one holds."""
        self.links |= other.links
        self.addresses |= other.addresses
        self.routes |= other.routes
        self.ours |= other.ours
        self.filters |= other.filters
        self.rules |= other.rules
        self.lost |= other.lost


class Pending:
    """Changes on their way from the thread that hears of them to the one that acts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # At the beginning nothing is known, which is as if all had changed.
        self._changes = Changes(lost=True)

    def add(self, changes: Changes) -> None:
        """Put in."""
        with self._lock:
            self._changes.add(changes)

    def take(self) -> Changes:
        """All that were put in since the last call."""
        with self._lock:
            found, self._changes = self._changes, Changes()
            return found


def monitor(changed: Callable[[Changes], None], own: Collection[int] = ()) -> Callable[[], None]:
    """Call `changed` in the running loop after changes, some at once; the result ends it.

    `own` are the ports of the sockets that we change routes with.
    """
    loop = asyncio.get_running_loop()
    channel = rt.listen(sum(_GROUPS.values()))

    def readable() -> None:
        found = Changes()
        try:
            while data := channel.recv(_RECEIVE_BYTES):
                found.note((message for _, message in rt.messages(data)), own)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found.lost = True
        if found:
            changed(found)

    loop.add_reader(channel, readable)

    def stop() -> None:
        loop.remove_reader(channel)
        channel.close()

    return stop
