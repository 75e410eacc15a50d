# SPDX-License-Identifier: Apache-2.0
"""Who holds what: an address or name is free when its last holder has let go of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from epic.errors import AddressNotUsable, AddressTaken, Exhausted
from epic.ipam.free import FreeAddresses
from epic.ipam.ranges import AddressRange
from epic.model.values.addresses import Address

T = TypeVar("T", bound=Hashable)
Holder = Hashable


class Holdings(Generic[T]):
    """What each holder holds; several may hold the same."""

    def __init__(self) -> None:
        self._of: dict[Holder, frozenset[T]] = {}
        self._holders: dict[T, set[Holder]] = {}

    def hold(self, holder: Holder, items: Iterable[T]) -> tuple[list[T], list[T]]:
        """Let the holder hold these and nothing else; what is held newly, and what nobody holds now."""
        new = frozenset(items)
        old = self._of.pop(holder, frozenset())
        if new:
            self._of[holder] = new
        taken = [item for item in new - old if self._add(holder, item)]
        return taken, [item for item in old - new if self._remove(holder, item)]

    def holders(self, item: T) -> Collection[Holder]:
        """Who holds it."""
        return self._holders.get(item, ())

    def __contains__(self, item: T) -> bool:
        return item in self._holders

    def __iter__(self) -> Iterator[T]:
        return iter(self._holders)

    def _add(self, holder: Holder, item: T) -> bool:
        holders = self._holders.setdefault(item, set())
        holders.add(holder)
        return len(holders) == 1

    def _remove(self, holder: Holder, item: T) -> bool:
        holders = self._holders[item]
        holders.discard(holder)
        if not holders:
            del self._holders[item]
        return not holders


@dataclass(frozen=True)
class Pool:
    """A range that addresses come from, as users know it."""

    name: str
    range: AddressRange


class AddressBook:
    """Held addresses, and what is free in pools. Addresses are given out by nobody: they are held or free."""

    def __init__(self) -> None:
        self._held: Holdings[Address] = Holdings()
        self._free: dict[str, FreeAddresses] = {}

    def hold(self, holder: Holder, addresses: Iterable[Address]) -> None:
        """Let the holder hold these addresses and no others."""
        taken, released = self._held.hold(holder, addresses)
        for free in self._free.values():
            for address in taken:
                free.take(address)
            for address in released:
                free.release(address)

    def holders(self, address: Address) -> Collection[Holder]:
        """Who holds the address; nobody: it is free."""
        return self._held.holders(address)

    def propose(self, pools: Sequence[Pool], count: int = 1) -> list[Address]:
        """The lowest `count` free addresses of the first pool that has any, others from the next ones.

        Raises Exhausted when all pools together have not so many.
        """
        found: list[Address] = []
        for pool in pools:
            found += self._free_in(pool).lowest(count - len(found))
        if len(found) < count:
            raise Exhausted(
                f"{pools[0].name} has not enough free addresses; delete gateways that are not needed any "
                "more or ask the platform's administrators to enlarge it",
                f"of {_sizes(pools)}, {len(found)} are free and {count} needed",
            )
        return found

    def check_requested(self, pools: Sequence[Pool], address: Address, *, released: bool = False) -> None:
        """Raise AddressNotUsable if it is in none of the pools, AddressTaken if somebody holds it.

        `released`: what holds it is a release that does not matter to who asks.
        """
        if not any(address in pool.range for pool in pools):
            raise AddressNotUsable(
                f"{pools[0].name} does not have the address {address}; "
                "ask for another one, or leave it to EPIC to choose",
                f"it has {_sizes(pools)}",
            )
        if address in self._held and not released:
            raise AddressTaken(f"the address {address} is not free; ask for another one, or leave it to EPIC")

    def _free_in(self, pool: Pool) -> FreeAddresses:
        free = self._free.get(pool.name)
        if free is None or free.range != pool.range:
            is_held: Callable[[Address], bool] = self._held.__contains__
            free = self._free[pool.name] = FreeAddresses(pool.range, is_held, self._held)
        return free


def _sizes(pools: Sequence[Pool]) -> str:
    return ", ".join(f"{pool.range}, {pool.range.size} addresses" for pool in pools)
