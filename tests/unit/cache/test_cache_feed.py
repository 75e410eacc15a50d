# SPDX-License-Identifier: Apache-2.0
"""The cache equals a full list after any sequence, and its changes add up to it, come what may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from cache_store import FED, NODES, ROUTES, FakeStore, assert_equals_full_list, cache_of
from hypothesis import given, settings
from hypothesis import strategies as st

from epic.cache.feed import Cache
from epic.cache.views import Delta
from epic.store.objects import Key

KEYS = [Key("GWRoute", account, name) for account in ("a", "a-b") for name in "rst"]
KEYS += [Key("Node", "", "n"), Key("Run", "", "1")]


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(cache.run())
    yield task
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Follower:
    """Adds up the changes that it is told."""

    def __init__(self, cache: Cache) -> None:
        self.objects: dict[tuple[str, str, str], object] = {}
        self.told: list[Delta] = []
        cache.subscribe(self.take)

    def take(self, delta: Delta) -> None:
        self.told.append(delta)
        key = (delta.kind, delta.account, delta.name)
        assert self.objects.get(key) == delta.old, "the changes of an object follow each other"
        if delta.new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = delta.new

    def follows(self, cache: Cache) -> bool:
        expected = {
            (kind.kind, e.account, e.name): e.object
            for kind in (ROUTES, NODES)
            for e in cache.snapshot.of(kind).entries()
        }
        return self.objects == expected


BODIES = st.sampled_from([b"x1", b"y1", b"z1", b"x2", b"!bad", b"?damaged"])
COMMITS = st.dictionaries(st.sampled_from(KEYS), st.none() | BODIES, min_size=1, max_size=3)
STEPS = st.lists(st.one_of(COMMITS, st.sampled_from(["compact", "break", "wait"])), max_size=25)


@settings(max_examples=80, deadline=None)
@given(before=st.lists(COMMITS, max_size=6), steps=STEPS, during=st.lists(COMMITS, max_size=4))
def test_any_sequence_ends_as_a_full_list(before: list, steps: list, during: list) -> None:  # type: ignore[type-arg]
    asyncio.run(asyncio.wait_for(play(before, steps, during), 60))


async def play(before: list, steps: list, during: list) -> None:  # type: ignore[type-arg]
    store = FakeStore()
    for changes in before:
        store.commit(changes)
    left = list(during)

    def commit_between_pages() -> None:
        if left:
            store.commit(left.pop())

    store.on_page = commit_between_pages
    cache = cache_of(store)
    follower = Follower(cache)
    async with running(cache):
        for step in steps:
            if step == "compact":
                store.compact()
            elif step == "break":
                store.break_watches()
            elif step == "wait":
                for _ in range(7):
                    await asyncio.sleep(0)
            else:
                store.commit(step)
        for changes in left:
            store.commit(changes)
        left.clear()
        await cache.reach(store.revision)
        await settle()
        assert_equals_full_list(cache, store)
        assert follower.follows(cache)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


async def test_snapshot_is_always_a_state_that_the_store_had() -> None:
    store = FakeStore()
    pair = (Key("GWRoute", "a", "r"), Key("Node", "", "n"))
    cache = cache_of(store)
    seen: set[tuple[str | None, str | None]] = set()

    def look(_: Delta) -> None:
        snapshot = cache.snapshot
        seen.add((snapshot.of(ROUTES).get("a", "r"), snapshot.of(NODES).get("", "n")))

    cache.subscribe(look)
    store.on_page = lambda: store.commit(dict.fromkeys(pair, b"x%d" % store.revision)) and None
    async with running(cache):
        for number in range(30):
            store.commit(dict.fromkeys(pair, b"x%d" % store.revision))
            if number % 7 == 0:
                store.compact()
            if number % 2 == 0:
                await settle()
            await asyncio.sleep(0)
        store.on_page = lambda: None
        await cache.reach(store.revision)
        await settle()
    assert len(seen) > 3 and all(route == node for route, node in seen)


async def test_compacted_watch_tells_only_what_differs() -> None:
    store = FakeStore()
    store.commit(dict.fromkeys(KEYS, b"x"))
    cache = cache_of(store)
    follower = Follower(cache)
    async with running(cache) as first:
        await cache.reach(store.revision)
        await settle()
        follower.told.clear()
        first.cancel()
    store.commit({KEYS[0]: b"y", KEYS[1]: None})
    store.compact()
    async with running(cache):
        await cache.reach(store.revision)
        await settle()
    assert store.lists == 2 * len(FED)
    assert sorted((d.name, d.old, d.new) for d in follower.told) == [("r", "x", "y"), ("s", "x", None)]
    assert_equals_full_list(cache, store)


async def test_broken_watch_goes_on_where_it_was_without_reading_everything() -> None:
    store = FakeStore()
    cache = cache_of(store)
    async with running(cache):
        await cache.reach(0)
        for number in range(5):
            store.break_watches()
            store.commit({KEYS[0]: b"x%d" % number})
            await cache.reach(store.revision)
    assert store.lists == len(FED)


async def test_revision_moves_on_without_changes_of_cached_kinds() -> None:
    store = FakeStore()
    cache = cache_of(store)
    follower = Follower(cache)
    async with running(cache):
        revision = store.commit({Key("Run", "", "1"): b"x"})
        assert (await cache.reach(revision)).revision == revision
    assert follower.told == []


async def test_object_that_cannot_be_read_hurts_itself_alone_and_is_not_gone() -> None:
    store = FakeStore()
    cache = cache_of(store)
    async with running(cache):
        store.commit({KEYS[0]: b"x", KEYS[1]: b"x"})
        await cache.reach(store.revision)
        store.commit({KEYS[0]: b"!new"})
        view = (await cache.reach(store.revision)).of(ROUTES)
    fault = view.fault("a", "r")
    assert fault is not None and fault.reason == "ValueError: not understood: !new"
    assert (view.get("a", "r"), view.get("a", "s")) == (None, "x")


async def test_handler_that_fails_keeps_nothing_from_others(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    cache = cache_of(store)

    def stumble(delta: Delta) -> None:
        raise KeyError(delta.name)

    cache.subscribe(stumble)
    follower = Follower(cache)
    async with running(cache):
        store.commit({KEYS[0]: b"x", KEYS[1]: b"y"})
        await cache.reach(store.revision)
        await settle()
    assert follower.follows(cache)
    assert "a change of GWRoute a/r was not taken" in caplog.text


async def test_what_was_not_told_when_it_was_cancelled_is_told_in_the_next_life() -> None:
    store = FakeStore()
    store.commit({Key("GWRoute", "a", f"r{n}"): b"x" for n in range(500)})
    cache = cache_of(store)
    follower = Follower(cache)
    async with running(cache):
        await cache.reach(store.revision)
    assert 0 < len(follower.told) < 500
    async with running(cache):
        await until(lambda: len(follower.told) == 500)
        assert follower.follows(cache)
