# SPDX-License-Identifier: Apache-2.0
"""Watches and history of the store on every engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from store_sites import StoreSite
from stored import NODE, A, B, watched

from epic.errors import Compacted, Invalid
from epic.store.object_store import ObjectStore
from epic.store.objects import Delete, Event, Key, Put, Stored

TOGETHER = 120


async def test_a_watch_tells_every_change_after_a_revision_in_order(store: ObjectStore) -> None:
    start = await store.commit(Put(NODE, b"0", 0))
    first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
    async with aclosing(store.watch(None, None, start)) as batches:
        second = await store.commit(Put(A, b"2", first))
        third = await store.commit(Delete(A, second))
        events = await watched(batches, 4)
    assert {(e.key, e.revision) for e in events[:2]} == {(A, first), (B, first)}
    assert events[2] == Event(A, second, Stored(A, second, b"2"))
    assert events[3] == Event(A, third, None)


async def test_a_watch_hears_of_what_comes_later_from_another_store(site: StoreSite) -> None:
    one, other = await site.open(), await site.open()
    async with aclosing(one.watch(None, None, await one.revision())) as batches:
        waiting = asyncio.create_task(watched(batches, 1))
        await asyncio.sleep(0)
        revision = await other.commit(Put(A, b"1", 0))
        assert await waiting == [Event(A, revision, Stored(A, revision, b"1"))]


@pytest.mark.parametrize(
    ("kind", "account", "expected"),
    [
        ("GWRoute", "shop", [A]),
        ("GWRoute", None, [A, Key("GWRoute", "other", "a")]),
        (None, "shop", [A, Key("GWService", "shop", "s")]),
        ("Node", None, [NODE]),
        (None, "", [NODE]),
    ],
)
async def test_a_watch_is_of_one_kind_and_account_or_of_all(
    store: ObjectStore, kind: str | None, account: str | None, expected: list[Key]
) -> None:
    start = await store.revision()
    for key in (A, NODE, Key("GWService", "shop", "s"), Key("GWRoute", "other", "a")):
        await store.commit(Put(key, b"1", 0))
    async with aclosing(store.watch(kind, account, start)) as batches:
        assert [event.key for event in await watched(batches, len(expected))] == expected


async def test_a_batch_never_holds_a_part_of_a_commit(store: ObjectStore) -> None:
    start = await store.revision()
    for commit in range(12):
        await store.commit(*(Put(Key("GWRoute", f"c{commit}", f"r{i}"), b"1", 0) for i in range(TOGETHER)))
    seen = 0
    async with aclosing(store.watch("GWRoute", None, start)) as batches:
        while seen < 12 * TOGETHER:
            batch = await anext(batches)
            assert len(batch.events) % TOGETHER == 0
            assert all(event.revision <= batch.revision for event in batch.events)
            seen += len(batch.events)


async def test_a_watch_from_a_compacted_revision_says_so(store: ObjectStore) -> None:
    first = await store.commit(Put(A, b"1", 0))
    second = await store.commit(Put(A, b"2", first))
    third = await store.commit(Put(A, b"3", second))
    await store.compact(third)
    async with aclosing(store.watch(None, None, first)) as batches:
        with pytest.raises(Compacted, match="list again"):
            await anext(batches)
    fourth = await store.commit(Delete(A, third))
    async with aclosing(store.watch(None, None, third)) as batches:
        assert await watched(batches, 1) == [Event(A, fourth, None)]


async def test_compaction_keeps_what_is_current(store: ObjectStore) -> None:
    first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
    second = await store.commit(Put(A, b"2", first))
    third = await store.commit(Delete(B, first))
    await store.compact(third)
    await store.compact(second)  # an older one changes nothing
    page = await store.list("GWRoute")
    assert [(stored.key, stored.revision, stored.body) for stored in page.items] == [(A, second, b"2")]


async def test_a_revision_of_the_future_is_refused(store: ObjectStore) -> None:
    future = await store.revision() + 1000
    async with aclosing(store.watch(None, None, future)) as batches:
        with pytest.raises(Invalid, match="not reached yet"):
            await anext(batches)
    with pytest.raises(Invalid, match="not reached yet"):
        await store.compact(future)
