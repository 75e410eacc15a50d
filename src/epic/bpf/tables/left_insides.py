# SPDX-License-Identifier: Apache-2.0
"""Inside addresses of tunnels that are gone: what is still sent to one must not leave in the clear.

A pod that had connections goes on repeating its replies for minutes, as TCP does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from epic.bpf.tables import records
from epic.bpf.tables.maps import Map

KEPT_SECONDS = 900.0
"""Linux repeats what nobody acknowledges for some 15 minutes (tcp_retries2 in ip-sysctl)."""
MOST = 4096
_NO_SLOT = records.ID.pack(0xFFFFFFFF)


class _Place(NamedTuple):
    insides: Map
    address: bytes


class LeftInsides:
    """They stay in the maps of inside addresses until their time is over, or room is needed."""

    def __init__(self, maps: tuple[Map, Map], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Since when those of an earlier process have been there is not known.
        until = clock() + KEPT_SECONDS
        self._until = {
            _Place(insides, address): until
            for insides in maps
            for address, slot in insides.items()
            if slot == _NO_SLOT
        }

    def leave(self, insides: Map, address: bytes) -> None:
        """The address has no tunnel any more."""
        place = _Place(insides, address)
        insides.set(address, _NO_SLOT)
        self._until.pop(place, None)
        self._until[place] = self._clock() + KEPT_SECONDS
        self.keep(MOST)

    def forget(self) -> None:
        """Those whose time is over."""
        now = self._clock()
        for place in [place for place, until in self._until.items() if until <= now]:
            self._forget(place)

    def keep(self, most: int) -> None:
        """No more than so many, the last ones: tunnels that are there come first."""
        while len(self._until) > max(0, most):
            self._forget(next(iter(self._until)))

    def _forget(self, place: _Place) -> None:
        del self._until[place]
        # A tunnel may have it again.
        if place.insides.get(place.address) == _NO_SLOT:
            place.insides.delete(place.address)
