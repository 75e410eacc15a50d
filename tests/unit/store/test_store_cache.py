# SPDX-License-Identifier: Apache-2.0
"""A cache over each engine equals a full list, and goes on after its history was compacted."""

from __future__ import annotations

import asyncio
import random

from cache_store import FED, NODES, ROUTES

from epic.cache.feed import Cache
from epic.cache.views import Delta
from epic.store.object_store import ObjectStore
from epic.store.objects import Delete, Key, Operation, Put

KEYS = [Key("GWRoute", account, name) for account in ("a", "a-b") for name in "rst"] + [Key("Node", "", "n")]


async def test_cache_follows_the_store(store: ObjectStore) -> None:
    cache = Cache(store, FED)
    told: dict[tuple[str, str, str], object] = {}
    is_told = asyncio.Event()

    def take(delta: Delta) -> None:
        told[delta.kind, delta.account, delta.name] = delta.new
        if delta.new == "last":
            is_told.set()

    cache.subscribe(take)
    task = asyncio.create_task(cache.run())
    chance = random.Random(3)
    revisions: dict[Key, int] = {}
    for number in range(60):
        operations: list[Operation] = []
        for key in chance.sample(KEYS, chance.randint(1, 3)):
            if key in revisions and chance.random() < 0.3:
                operations.append(Delete(key, revisions.pop(key)))
            else:
                body = chance.choice([b"x", b"y", b"!z"]) + b"%d" % number
                operations.append(Put(key, body, revisions.get(key, 0)))
        revision = await store.commit(*operations)
        revisions |= {o.key: revision for o in operations if isinstance(o, Put)}
        if number % 20 == 10:
            await store.compact(revision)
    revision = await store.commit(Put(KEYS[-1], b"last", revisions.get(KEYS[-1], 0)))
    snapshot = await cache.reach(revision)
    await is_told.wait()
    assert snapshot.revision == revision
    for kind in (ROUTES, NODES):
        items = (await store.list(kind.kind)).items
        texts = {(s.key.account, s.key.name): s.body.decode() for s in items if s.body[:1] != b"!"}
        found = {(e.account, e.name): e.object for e in snapshot.of(kind).entries()}
        assert found == texts
        assert found == {key[1:]: new for key, new in told.items() if key[0] == kind.kind and new is not None}
    task.cancel()
