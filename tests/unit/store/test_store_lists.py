# SPDX-License-Identifier: Apache-2.0
"""Lists of the store on every engine: order, pages, selectors."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from stored import A, B, names, watched

from epic.errors import Compacted, Invalid
from epic.model.values.labels import parse_selector
from epic.store.object_store import ObjectStore
from epic.store.objects import Delete, Key, Put


async def test_a_list_is_of_one_kind_and_account_in_the_order_of_paths(store: ObjectStore) -> None:
    for account, name in (("b", "x"), ("a", "z"), ("a-b", "y"), ("a", "a.1"), ("a", "a-1")):
        await store.commit(Put(Key("GWRoute", account, name), b"1", 0))
    await store.commit(Put(Key("GWService", "a", "s"), b"1", 0))
    assert await names(store, account="a") == ["a-1", "a.1", "z"]
    assert await names(store) == ["y", "a-1", "a.1", "z", "x"]
    assert await names(store, account="c") == []


async def test_pages_show_the_first_ones_revision_whatever_is_written_between(store: ObjectStore) -> None:
    for i in range(7):
        await store.commit(Put(Key("GWRoute", "shop", f"r{i}"), b"old", 0))
    page = await store.list("GWRoute", "shop", limit=3)
    at = page.revision
    last = (await store.get(Key("GWRoute", "shop", "r6"))).revision
    await store.commit(Put(Key("GWRoute", "shop", "r6"), b"new", last))
    fifth = (await store.get(Key("GWRoute", "shop", "r5"))).revision
    await store.commit(Delete(Key("GWRoute", "shop", "r5"), fifth))
    await store.commit(Put(Key("GWRoute", "shop", "r55"), b"new", 0))
    found = list(page.items)
    while page.continue_token:
        page = await store.list("GWRoute", "shop", limit=3, continue_token=page.continue_token)
        assert page.revision == at
        found += page.items
    assert [(stored.key.name, stored.body) for stored in found] == [(f"r{i}", b"old") for i in range(7)]


async def test_a_selector_fills_its_pages(store: ObjectStore) -> None:
    for i in range(12):
        labels = {"app": "shop"} if i % 3 == 0 else {}
        await store.commit(Put(Key("GWRoute", "shop", f"r{i:02}"), b"1", 0, labels))
    selector = parse_selector("app=shop")
    page = await store.list("GWRoute", selector=selector, limit=3)
    assert [stored.key.name for stored in page.items] == ["r00", "r03", "r06"]
    page = await store.list("GWRoute", selector=selector, limit=3, continue_token=page.continue_token)
    assert [stored.key.name for stored in page.items] == ["r09"]
    assert page.continue_token == ""


async def test_a_list_larger_than_one_question_is_whole(store: ObjectStore) -> None:
    for first in range(0, 1100, 100):
        await store.commit(
            *(Put(Key("GWRoute", "shop", f"r{i:04}"), b"1", 0) for i in range(first, first + 100))
        )
    assert await names(store) == [f"r{i:04}" for i in range(1100)]


async def test_large_objects_come_a_few_at_a_time_but_all(store: ObjectStore) -> None:
    start = await store.revision()
    for i in range(12):
        await store.commit(Put(Key("GWRoute", "shop", f"r{i:02}"), b"x" * 900_000, 0))
    expected = [f"r{i:02}" for i in range(12)]
    assert await names(store) == expected
    page = await store.list("GWRoute", limit=10)
    page = await store.list("GWRoute", limit=10, continue_token=page.continue_token)
    assert [stored.key.name for stored in page.items] == expected[10:]
    async with aclosing(store.watch("GWRoute", None, start)) as batches:
        assert [event.key.name for event in await watched(batches, 12)] == expected


async def test_a_token_does_not_lead_out_of_its_list(store: ObjectStore) -> None:
    await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
    token = (await store.list("GWRoute", "shop", limit=1)).continue_token
    for wrong in (token[:-3], "x", "\ud800", "é"):
        with pytest.raises(Invalid, match="continue"):
            await store.list("GWRoute", "shop", limit=1, continue_token=wrong)
    with pytest.raises(Invalid, match="continue"):
        await store.list("GWRoute", "other", limit=1, continue_token=token)


async def test_a_list_that_took_too_long_says_so(store: ObjectStore) -> None:
    first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
    token = (await store.list("GWRoute", limit=1)).continue_token
    last = await store.commit(Put(B, b"2", first))
    await store.compact(last)
    with pytest.raises(Compacted):
        await store.list("GWRoute", limit=1, continue_token=token)
