# SPDX-License-Identifier: Apache-2.0
"""Inside addresses of tunnels that are gone: what is still sent to one must not leave in the clear.

A pod that had connections goes on repeating its replies for minutes, as TCP does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from epic.bpf.tables import records
from epic.bpf.tables.maps import Map

KEPT_SECONDS = 900.0
"""Linux repeats what nobody acknowledges for some 15 minutes (tcp_retries2 in ip-sysctl)."""
MOST = 4096
_NO_SLOT = records.ID.pack(0xFFFFFFFF)


class _Left(NamedTuple):
    until: float
    insides: Map
    address: bytes


class LeftInsides:
    """They stay in the maps of inside addresses until their time is over, or room is needed."""

    def __init__(self, maps: tuple[Map, Map], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Since when those of an earlier process have been there is not known.
        until = clock() + KEPT_SECONDS
        self._left = deque(
            _Left(until, insides, address)
            for insides in maps
            for address, slot in insides.items()
            if slot == _NO_SLOT
        )

    def leave(self, insides: Map, address: bytes) -> None:
        """The address has no tunnel any more."""
        insides.set(address, _NO_SLOT)
        self._left.append(_Left(self._clock() + KEPT_SECONDS, insides, address))
        self.keep(MOST)

    def forget(self) -> None:
        """Those whose time is over."""
        now = self._clock()
        while self._left and self._left[0].until <= now:
            self._forget_first()

    def keep(self, most: int) -> None:
        """No more than so many, the last ones: tunnels that are there come first."""
        while len(self._left) > max(0, most):
            self._forget_first()

    def _forget_first(self) -> None:
        _, insides, address = self._left.popleft()
        # A tunnel may have it again.
        if insides.get(address) == _NO_SLOT:
            insides.delete(address)
