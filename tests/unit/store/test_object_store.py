# SPDX-License-Identifier: Apache-2.0
"""What the store does on every engine: objects and commits."""

from __future__ import annotations

import asyncio

import pytest
from store_sites import SCHEMA, StoreSite
from stored import NODE, A, B, names

from epic.errors import Invalid, NotFound
from epic.store.object_store import ObjectStore
from epic.store.objects import (
    CommitConflict,
    Delete,
    Key,
    Mismatch,
    Put,
    Stored,
    Unchanged,
)


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

    async def test_as_many_objects_as_promised_fit_and_no_more(self, site: StoreSite) -> None:
        engine = await site.open_engine()
        store, most = ObjectStore(engine, SCHEMA), engine.limits.operations
        puts = [Put(Key("Node", "", f"n{i}"), b"1", 0) for i in range(most + 1)]
        with pytest.raises(Invalid, match=f"{most + 1} objects: expected 1 to {most}"):
            await store.commit(*puts)
        done = await store.carry_out(puts[:-1])
        assert len(await names(store, "Node")) == most
        path = puts[0].key.path
        assert await store.commit(Delete(puts[0].key, done.of.get(path, done.revision))) > done.revision

    async def test_as_many_bytes_as_promised_fit_and_no_more(self, site: StoreSite) -> None:
        engine = await site.open_engine()
        store, most = ObjectStore(engine, SCHEMA), engine.limits.bytes
        with pytest.raises(Invalid, match="bytes: expected at most"):
            await store.commit(Put(A, b"x" * most, 0))
        body = b"x" * (most - 100)
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
