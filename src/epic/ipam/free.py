# SPDX-License-Identifier: Apache-2.0
"""Which addresses of a range are free, without walking it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from epic.ipam.ranges import AddressRange, count_routers, is_routers
from epic.model.values.addresses import Address


class FreeAddresses:
    """The free addresses of a range, lowest first; `is_held` is the truth about each.

    Below the frontier all addresses are held or released ones that wait in a heap; from the frontier on
    only single ones are held. So the cost is that of the addresses that were ever held, whatever the
    range's size. To look at what is free gives nothing away: an address is taken by its being held.
    Subnet-Router anycast addresses are not free, whoever holds them.
    """

    def __init__(
        self, range_: AddressRange, is_held: Callable[[Address], bool], held: Iterable[Address]
    ) -> None:
        self.range = range_
        self._is_held = is_held
        self._make = IPv4Address if range_.first.version == 4 else IPv6Address
        self._frontier = int(range_.first)
        self._released: list[int] = []
        self._waiting: set[int] = set()
        self._usable = range_.size - count_routers(range_)
        self.held = sum(map(self._counts, held))

    def take(self, address: Address) -> None:
        """Note that the address, which was free, is held now."""
        if self._counts(address):
            self.held += 1

    def release(self, address: Address) -> None:
        """Note that nobody holds the address any more."""
        if not self._counts(address):
            return
        self.held -= 1
        number = int(address)
        if number < self._frontier and number not in self._waiting:
            self._waiting.add(number)
            heapq.heappush(self._released, number)

    def lowest(self, count: int) -> list[Address]:
        """The lowest `count` free addresses, or all if there are fewer."""
        count = min(count, self._usable - self.held)
        found = self._lowest_released(count)
        above = self._above_frontier()
        while len(found) < count:
            found.append(next(above))
        return found

    def _lowest_released(self, count: int) -> list[Address]:
        found: list[Address] = []
        while self._released and len(found) < count:
            number = heapq.heappop(self._released)
            address = self._make(number)
            if self._is_held(address):
                self._waiting.discard(number)
            else:
                found.append(address)
        for address in found:
            heapq.heappush(self._released, int(address))
        return found

    def _above_frontier(self) -> Iterator[Address]:
        last = int(self.range.last)
        while self._frontier <= last and not self._is_free(self._make(self._frontier)):
            self._frontier += 1
        for number in range(self._frontier, last + 1):
            address = self._make(number)
            if self._is_free(address):
                yield address

    def _counts(self, address: Address) -> bool:
        return address in self.range and not is_routers(address)

    def _is_free(self, address: Address) -> bool:
        return not is_routers(address) and not self._is_held(address)
