# SPDX-License-Identifier: Apache-2.0
"""What the tests of the store have in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from epic.store.object_store import ObjectStore
from epic.store.objects import Batch, Event, Key

A = Key("GWRoute", "shop", "a")
B = Key("GWRoute", "shop", "b")
NODE = Key("Node", "", "epic1")


async def watched(batches: AsyncGenerator[Batch, None], count: int) -> list[Event]:
    """The next events, at least so many."""
    events: list[Event] = []
    while len(events) < count:
        events += (await anext(batches)).events
    return events


async def names(store: ObjectStore, kind: str = "GWRoute", account: str | None = None) -> list[str]:
    """In the order of their list."""
    return [stored.key.name for stored in (await store.list(kind, account)).items]
