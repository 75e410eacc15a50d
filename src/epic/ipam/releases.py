# SPDX-License-Identifier: Apache-2.0
"""Public addresses that gateways have had, in the order in which these let go of them. Pure.

All nodes have said that they do not announce such an address any more. But clients, resolvers and routers may
remember it for a while, and what they send is meant for who had it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from epic.ipam.ranges import AddressRange
from epic.model.values.addresses import Address

REMEMBERED = timedelta(days=1)
"""For so long an address comes after all those that nobody has had in this time."""


@dataclass(frozen=True)
class Release:
    """Which account had the address (empty: one that is no more), and when its gateway was gone."""

    account: str
    time: datetime


@dataclass(frozen=True)
class Asker:
    """Who wants an address: an account, which may have what others released until `released_until`."""

    account: str
    released_until: datetime

    def may_have(self, release: Release) -> bool:
        """Whether the address may be given to this account now."""
        return release.account == self.account or release.time <= self.released_until


class Releases:
    """The releases by address; an address that was given out again has none."""

    def __init__(self) -> None:
        self._of: dict[Address, Release] = {}
        self._order: list[tuple[datetime, int, Address]] = []

    def note(self, address: Address, release: Release) -> None:
        """The address was released; an earlier release of it counts no more."""
        self.forget(address)
        self._of[address] = release
        insort(self._order, (release.time, int(address), address))

    def forget(self, address: Address) -> None:
        """The address was given out, or its release is long ago."""
        release = self._of.pop(address, None)
        if release is not None:
            del self._order[bisect_left(self._order, (release.time, int(address)))]

    def find(self, address: Address) -> Release | None:
        """The release of an address that nobody has got since."""
        return self._of.get(address)

    def within(self, pool: AddressRange, asker: Asker) -> Iterator[Address]:
        """The addresses of the pool that the asker may have, least recently released first."""
        for _, _, address in self._order:
            if address in pool and asker.may_have(self._of[address]):
                yield address

    def withheld(self, pool: AddressRange, asker: Asker) -> list[Address]:
        """Those of the pool that the asker released and nobody else may have yet, first come first."""
        first = bisect_right(self._order, asker.released_until, key=lambda entry: entry[0])
        recent = (address for _, _, address in self._order[first:])
        return [a for a in recent if a in pool and self._of[a].account == asker.account]

    def count(self, pool: AddressRange) -> int:
        """How many addresses of the pool were released and not given out again."""
        return sum(address in pool for address in self._of)
