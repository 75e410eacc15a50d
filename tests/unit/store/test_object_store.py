# SPDX-License-Identifier: Apache-2.0
"""What the store does on every engine: objects, commits, lists, watches, history, quarantine, leases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from store_sites import SCHEMA, StoreSite

from epic.errors import Compacted, Damaged, Invalid, NotFound
from epic.model.labels import parse_selector
from epic.store.object_store import ObjectStore
from epic.store.objects import (
    MAX_COMMIT_BYTES,
    MAX_OPERATIONS,
    Batch,
    CommitConflict,
    Delete,
    Event,
    Key,
    Mismatch,
    Put,
    Stored,
    Unchanged,
    Unreadable,
)
from epic.store.schema import Schema, StoredKind

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
    return [stored.key.name for stored in (await store.list(kind, account)).items]


class TestObjects:
    async def test_created_object_is_read_back_as_the_same_bytes(self, store: ObjectStore) -> None:
        revision = await store.commit(Put(A, b'{"spec":1}', 0, {"app": "shop"}))
        assert await store.get(A) == Stored(A, revision, b'{"spec":1}', {"app": "shop"}, 1)

    async def test_missing_object_is_named(self, store: ObjectStore) -> None:
        with pytest.raises(NotFound, match="GWRoute 'a' of account 'shop' does not exist"):
            await store.get(A)

    async def test_objects_and_revisions_survive_reopening(self, site: StoreSite) -> None:
        revision = await (await site.open()).commit(Put(A, b"1", 0), Put(NODE, b"2", 0))
        await site.close_all()
        again = await site.open()
        assert await again.revision() >= revision
        assert (await again.get(NODE)).revision == revision

    async def test_two_stores_on_one_database_see_each_other(self, site: StoreSite) -> None:
        one, other = await site.open(), await site.open()
        revision = await one.commit(Put(A, b"1", 0))
        assert (await other.get(A)).revision == revision
        assert await other.commit(Put(A, b"2", revision)) > revision
        assert (await one.get(A)).body == b"2"

    @pytest.mark.parametrize(
        "key",
        [
            Key("gwroute", "shop", "a"),
            Key("GWRoute", "shop", ""),
            Key("GWRoute", "shop", "a/b"),
            Key("GWRoute", "..", "a"),
            Key("GWRoute", "shop", "a\0"),
            Key("GWRoute", "shop", "\ud800"),
            Key("GWRoute", "shop", "é" * 127),
        ],
    )
    async def test_key_that_is_none_is_refused(self, store: ObjectStore, key: Key) -> None:
        with pytest.raises(Invalid):
            await store.get(key)
        with pytest.raises(Invalid):
            await store.commit(Put(key, b"", 0))

    async def test_names_may_be_addresses_and_of_any_language(self, store: ObjectStore) -> None:
        for name in ("2001:db8::1", "192.0.2.1", "größe", "a" * 253):
            key = Key("GWRoute", "shop", name)
            await store.commit(Put(key, name.encode(), 0))
            assert (await store.get(key)).body == name.encode()


class TestCommits:
    async def test_all_objects_of_a_commit_have_its_revision(self, store: ObjectStore) -> None:
        old = await store.commit(Put(B, b"1", 0))
        revision = await store.commit(Put(A, b"1", 0), Put(B, b"2", old), Put(NODE, b"3", 0))
        assert {(await store.get(key)).revision for key in (A, B, NODE)} == {revision}

    async def test_a_commit_with_one_mismatch_writes_nothing_and_names_each(self, store: ObjectStore) -> None:
        there = await store.commit(Put(A, b"1", 0))
        with pytest.raises(CommitConflict) as caught:
            await store.commit(Put(NODE, b"1", 0), Put(A, b"2", 0), Delete(B, there))
        assert set(caught.value.mismatches) == {Mismatch(A, 0, there), Mismatch(B, there, 0)}
        assert "exists already" in str(caught.value)
        assert await store.revision() == there
        with pytest.raises(NotFound):
            await store.get(NODE)

    async def test_a_commit_happens_only_if_what_it_read_is_unchanged(self, store: ObjectStore) -> None:
        read = await store.commit(Put(A, b"1", 0))
        await store.commit(Put(B, b"1", 0), Unchanged(A, read), Unchanged(NODE, 0))
        changed = await store.commit(Put(A, b"2", read))
        with pytest.raises(CommitConflict) as caught:
            await store.commit(Put(NODE, b"1", 0), Unchanged(A, read))
        assert caught.value.mismatches == (Mismatch(A, read, changed),)

    async def test_a_commit_that_only_compares_changes_no_revision(self, store: ObjectStore) -> None:
        read = await store.commit(Put(A, b"1", 0))
        assert await store.commit(Unchanged(A, read)) == read == await store.revision()

    async def test_a_deleted_object_is_gone_and_can_be_made_again(self, store: ObjectStore) -> None:
        first = await store.commit(Put(A, b"1", 0))
        gone = await store.commit(Delete(A, first))
        with pytest.raises(NotFound):
            await store.get(A)
        assert await store.commit(Put(A, b"2", 0)) > gone > first

    async def test_of_writers_at_the_same_revision_one_wins(self, store: ObjectStore) -> None:
        read = await store.commit(Put(A, b"0", 0))
        puts = [store.commit(Put(A, b"%d" % i, read)) for i in range(20)]
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, CommitConflict) for result in results) == 19

    async def test_as_many_objects_as_promised_fit_and_no_more(self, store: ObjectStore) -> None:
        puts = [Put(Key("Node", "", f"n{i}"), b"1", 0) for i in range(MAX_OPERATIONS + 1)]
        with pytest.raises(Invalid, match="121 objects: expected 1 to 120"):
            await store.commit(*puts)
        await store.commit(*puts[:-1])
        assert len(await names(store, "Node")) == MAX_OPERATIONS

    async def test_as_many_bytes_as_promised_fit_and_no_more(self, store: ObjectStore) -> None:
        with pytest.raises(Invalid, match="bytes: expected at most"):
            await store.commit(Put(A, b"x" * MAX_COMMIT_BYTES, 0))
        body = b"x" * (MAX_COMMIT_BYTES - 100)
        await store.commit(Put(A, body, 0))
        assert (await store.get(A)).body == body

    async def test_a_commit_of_nothing_or_of_one_object_twice_is_refused(self, store: ObjectStore) -> None:
        with pytest.raises(Invalid, match="0 objects"):
            await store.commit()
        with pytest.raises(Invalid, match="twice"):
            await store.commit(Put(A, b"1", 0), Unchanged(A, 0))

    async def test_a_kind_that_is_not_known_is_not_stored(self, store: ObjectStore) -> None:
        with pytest.raises(Invalid, match="kind 'Toaster' is not stored"):
            await store.commit(Put(Key("Toaster", "", "a"), b"1", 0))


class TestLists:
    async def test_a_list_is_of_one_kind_and_account_in_the_order_of_paths(self, store: ObjectStore) -> None:
        for account, name in (("b", "x"), ("a", "z"), ("a-b", "y"), ("a", "a.1"), ("a", "a-1")):
            await store.commit(Put(Key("GWRoute", account, name), b"1", 0))
        await store.commit(Put(Key("GWService", "a", "s"), b"1", 0))
        assert await names(store, account="a") == ["a-1", "a.1", "z"]
        assert await names(store) == ["y", "a-1", "a.1", "z", "x"]
        assert await names(store, account="c") == []

    async def test_pages_show_the_first_ones_revision_whatever_is_written_between(
        self, store: ObjectStore
    ) -> None:
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

    async def test_a_selector_fills_its_pages(self, store: ObjectStore) -> None:
        for i in range(12):
            labels = {"app": "shop"} if i % 3 == 0 else {}
            await store.commit(Put(Key("GWRoute", "shop", f"r{i:02}"), b"1", 0, labels))
        selector = parse_selector("app=shop")
        page = await store.list("GWRoute", selector=selector, limit=3)
        assert [stored.key.name for stored in page.items] == ["r00", "r03", "r06"]
        page = await store.list("GWRoute", selector=selector, limit=3, continue_token=page.continue_token)
        assert [stored.key.name for stored in page.items] == ["r09"]
        assert page.continue_token == ""

    async def test_a_list_larger_than_one_question_is_whole(self, store: ObjectStore) -> None:
        for first in range(0, 1100, 100):
            await store.commit(
                *(Put(Key("GWRoute", "shop", f"r{i:04}"), b"1", 0) for i in range(first, first + 100))
            )
        assert await names(store) == [f"r{i:04}" for i in range(1100)]

    async def test_large_objects_come_a_few_at_a_time_but_all(self, store: ObjectStore) -> None:
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

    async def test_a_token_does_not_lead_out_of_its_list(self, store: ObjectStore) -> None:
        await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
        token = (await store.list("GWRoute", "shop", limit=1)).continue_token
        for wrong in (token[:-3], "x", "\ud800", "é"):
            with pytest.raises(Invalid, match="continue"):
                await store.list("GWRoute", "shop", limit=1, continue_token=wrong)
        with pytest.raises(Invalid, match="continue"):
            await store.list("GWRoute", "other", limit=1, continue_token=token)

    async def test_a_list_that_took_too_long_says_so(self, store: ObjectStore) -> None:
        first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
        token = (await store.list("GWRoute", limit=1)).continue_token
        last = await store.commit(Put(B, b"2", first))
        await store.compact(last)
        with pytest.raises(Compacted):
            await store.list("GWRoute", limit=1, continue_token=token)


class TestWatches:
    async def test_a_watch_tells_every_change_after_a_revision_in_order(self, store: ObjectStore) -> None:
        start = await store.commit(Put(NODE, b"0", 0))
        first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
        async with aclosing(store.watch(None, None, start)) as batches:
            second = await store.commit(Put(A, b"2", first))
            third = await store.commit(Delete(A, second))
            events = await watched(batches, 4)
        assert {(e.key, e.revision) for e in events[:2]} == {(A, first), (B, first)}
        assert events[2] == Event(A, second, Stored(A, second, b"2"))
        assert events[3] == Event(A, third, None)

    async def test_a_watch_hears_of_what_comes_later_from_another_store(self, site: StoreSite) -> None:
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
        self, store: ObjectStore, kind: str | None, account: str | None, expected: list[Key]
    ) -> None:
        start = await store.revision()
        for key in (A, NODE, Key("GWService", "shop", "s"), Key("GWRoute", "other", "a")):
            await store.commit(Put(key, b"1", 0))
        async with aclosing(store.watch(kind, account, start)) as batches:
            assert [event.key for event in await watched(batches, len(expected))] == expected

    async def test_a_batch_never_holds_a_part_of_a_commit(self, store: ObjectStore) -> None:
        start = await store.revision()
        for commit in range(12):
            await store.commit(
                *(Put(Key("GWRoute", f"c{commit}", f"r{i}"), b"1", 0) for i in range(MAX_OPERATIONS))
            )
        seen = 0
        async with aclosing(store.watch("GWRoute", None, start)) as batches:
            while seen < 12 * MAX_OPERATIONS:
                batch = await anext(batches)
                assert len(batch.events) % MAX_OPERATIONS == 0
                assert all(event.revision <= batch.revision for event in batch.events)
                seen += len(batch.events)

    async def test_a_watch_from_a_compacted_revision_says_so(self, store: ObjectStore) -> None:
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

    async def test_compaction_keeps_what_is_current(self, store: ObjectStore) -> None:
        first = await store.commit(Put(A, b"1", 0), Put(B, b"1", 0))
        second = await store.commit(Put(A, b"2", first))
        third = await store.commit(Delete(B, first))
        await store.compact(third)
        await store.compact(second)  # an older one changes nothing
        page = await store.list("GWRoute")
        assert [(stored.key, stored.revision, stored.body) for stored in page.items] == [(A, second, b"2")]

    async def test_a_revision_of_the_future_is_refused(self, store: ObjectStore) -> None:
        future = await store.revision() + 1000
        async with aclosing(store.watch(None, None, future)) as batches:
            with pytest.raises(Invalid, match="not reached yet"):
                await anext(batches)
        with pytest.raises(Invalid, match="not reached yet"):
            await store.compact(future)


class TestQuarantine:
    async def test_a_damaged_object_is_left_out_and_reported(
        self, store: ObjectStore, site: StoreSite
    ) -> None:
        revision = await store.commit(Put(A, b'{"a":1}', 0), Put(B, b'{"b":1}', 0))
        await site.alter(A, lambda value: value.replace(b'"a":1', b'"a":7'))
        page = await store.list("GWRoute")
        assert [stored.key for stored in page.items] == [B]
        assert [unreadable.key for unreadable in page.unreadable] == [A]
        with pytest.raises(Damaged, match=r"GWRoute 'a' of account 'shop' at revision .*checksum"):
            await store.get(A)
        assert store.quarantine.entries() == list(page.unreadable)
        assert page.unreadable[0].revision >= revision

    async def test_a_damaged_object_can_be_replaced_and_is_free_then(
        self, store: ObjectStore, site: StoreSite
    ) -> None:
        await store.commit(Put(A, b'{"a":1}', 0))
        await site.alter(A, lambda _: b"garbage")
        (unreadable,) = (await store.list("GWRoute")).unreadable
        with pytest.raises(CommitConflict):
            await store.commit(Put(A, b"new", 0))
        await store.commit(Put(A, b"new", unreadable.revision))
        assert (await store.get(A)).body == b"new"
        assert store.quarantine.entries() == []

    async def test_a_watch_goes_on_over_what_it_cannot_read(self, site: StoreSite) -> None:
        newer = await site.open(Schema([StoredKind("GWRoute", form=2)]))
        old = await site.open(SCHEMA)
        start = await old.revision()
        reported: list[Unreadable] = []
        old.quarantine.on_report(reported.append)
        revision = await newer.commit(Put(A, b"{}", 0))
        later = await old.commit(Put(B, b"{}", 0))
        async with aclosing(old.watch("GWRoute", None, start)) as batches:
            first, second = await watched(batches, 2)
        assert first.object == Unreadable(A, revision, reported[0].reason)
        assert "written by a newer EPIC (in form 2; this one reads up to 1)" in reported[0].reason
        assert second.object == Stored(B, later, b"{}")
        assert (await newer.get(A)).body == b"{}"

    async def test_an_older_form_is_converted_when_it_is_read(self, site: StoreSite) -> None:
        def rename(content: dict[str, object]) -> dict[str, object]:
            return {"new": content["old"]}

        def nest(content: dict[str, object]) -> dict[str, object]:
            return {"spec": content}

        revision = await (await site.open()).commit(Put(A, b'{"old":1}', 0), Put(B, b'{"odd":1}', 0))
        schema = Schema([StoredKind("GWRoute", form=3, conversions={1: rename, 2: nest})])
        newer = await site.open(schema)
        page = await newer.list("GWRoute")
        assert [(json.loads(stored.body), stored.stored_form) for stored in page.items] == [
            ({"spec": {"new": 1}}, 1)
        ]
        assert [unreadable.reason for unreadable in page.unreadable] == [
            "form 1 cannot be converted to 3: KeyError: 'old'"
        ]
        await newer.commit(Put(A, page.items[0].body, revision))
        assert (await newer.get(A)).stored_form == 3

    async def test_a_form_that_is_not_converted_any_more_is_named(self, site: StoreSite) -> None:
        await (await site.open()).commit(Put(A, b"{}", 0))
        newer = await site.open(Schema([StoredKind("GWRoute", form=3, conversions={2: dict})]))
        with pytest.raises(Damaged, match="its form 1 is too old"):
            await newer.get(A)

    async def test_a_kind_of_another_version_is_kept_unread(self, site: StoreSite) -> None:
        store = await site.open()
        start = await store.revision()
        await store.commit(Put(NODE, b"{}", 0))
        other = await site.open(Schema([StoredKind("GWRoute")]))
        with pytest.raises(Damaged, match="kind Node is not known to this version of EPIC"):
            await other.get(NODE)
        async with aclosing(other.watch(None, None, start)) as batches:
            (event,) = await watched(batches, 1)
        assert isinstance(event.object, Unreadable)
        assert (await store.get(NODE)).body == b"{}"


class TestLeases:
    async def test_one_holds_a_lease_and_the_next_gets_it_when_it_is_released(self, site: StoreSite) -> None:
        one, other = await site.open(), await site.open()
        lease = await one.acquire("runs", "host-1", 5)
        waiting = asyncio.create_task(other.acquire("runs", "host-2", 5))
        await other.commit(Put(A, b"1", 0), lease.fence)
        assert not waiting.done()
        await lease.release()
        await lease.wait_lost()
        second = await waiting
        assert json.loads((await one.get(second.key)).body) == {"holder": "host-2"}
        await second.release()

    async def test_who_lost_a_lease_can_commit_nothing_under_it(self, site: StoreSite) -> None:
        one, other = await site.open(), await site.open()
        lease = await one.acquire("runs", "host-1", 5)
        await lease.release()
        with pytest.raises(CommitConflict):
            await one.commit(Put(A, b"1", 0), lease.fence)
        second = await other.acquire("runs", "host-2", 5)
        with pytest.raises(CommitConflict):
            await one.commit(Put(A, b"1", 0), lease.fence)
        await other.commit(Put(A, b"1", 0), second.fence)
        await second.release()

    async def test_waiting_can_be_given_up(self, site: StoreSite) -> None:
        store = await site.open()
        lease = await store.acquire("runs", "host-1", 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.acquire("runs", "host-2", 5)
        await lease.release()
        await (await store.acquire("runs", "host-3", 5)).release()
