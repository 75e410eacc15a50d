# SPDX-License-Identifier: Apache-2.0
"""Leases: who of several processes or hosts does what only one may do."""

from __future__ import annotations

import json

from epic.store.engine import EngineLease
from epic.store.objects import Key, Unchanged


class Lease:
    """Held from `ObjectStore.acquire` until it is released or lost."""

    def __init__(self, key: Key, held: EngineLease) -> None:
        self.key = key
        self._held = held

    @property
    def fence(self) -> Unchanged:
        """Put this into commits: they are refused when the lease is not ours any more."""
        return Unchanged(self.key, self._held.revision)

    async def wait_lost(self) -> None:
        """Return when the lease is not ours any more."""
        await self._held.wait_lost()

    async def release(self) -> None:
        """Let go of it, so that another can hold it at once."""
        await self._held.release()


def lease_body(holder: str) -> bytes:
    """What the lease's object holds."""
    return json.dumps({"holder": holder}, separators=(",", ":")).encode()
