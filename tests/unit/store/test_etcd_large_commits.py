# SPDX-License-Identifier: Apache-2.0
"""Commits that are more than one transaction of etcd's: all of them or nothing, whoever dies in between."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from etcd_server import EtcdServer
from store_sites import SCHEMA, EtcdSite

from epic.cache.store import CachedStore
from epic.errors import Conflict, Invalid, OutcomeUnknown, StorageFull, Unavailable
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec, GWRoute
from epic.store.etcd import journal
from epic.store.etcd.engine import EtcdEngine
from epic.store.location import StoreLocation
from epic.store.object_store import ObjectStore
from epic.store.objects import CommitConflict, Delete, Key, Put, Unchanged

MANY = 300


def key(number: int) -> Key:
    return Key("GWRoute", "shop", f"r{number:04}")


def puts(count: int, body: bytes = b"1", expected: int = 0) -> list[Put]:
    return [Put(key(number), body, expected) for number in range(count)]


async def bodies(store: ObjectStore) -> list[bytes]:
    return [stored.body for stored in (await store.list("GWRoute")).items]


async def test_objects_of_a_large_commit_are_at_the_revisions_that_are_told(etcd_site: EtcdSite) -> None:
    store = await etcd_site.open()
    done = await store.carry_out(puts(MANY))
    found = (await store.list("GWRoute")).items
    assert {stored.key.path: stored.revision for stored in found} == done.of
    assert max(done.of.values()) == done.revision <= await store.revision()
    changed = [Put(s.key, b"2", s.revision) for s in found[:200]]
    deleted = [Delete(s.key, s.revision) for s in found[200:]]
    await store.carry_out([*changed, *deleted])
    assert await bodies(store) == [b"2"] * 200


async def test_a_large_commit_is_refused_whole_where_anything_is_not_as_expected(etcd_site: EtcdSite) -> None:
    store = await etcd_site.open()
    revision = await store.commit(Put(key(MANY), b"0", 0))
    with pytest.raises(CommitConflict) as refused:
        await store.carry_out([*puts(MANY), Unchanged(key(MANY), revision - 1)])
    (mismatch,) = refused.value.mismatches
    assert (mismatch.key, mismatch.actual) == (key(MANY), revision)
    assert await bodies(store) == [b"0"]
    await store.carry_out([*puts(MANY), Unchanged(key(MANY), revision)])
    assert len(await bodies(store)) == MANY + 1


async def test_of_large_and_small_commits_of_many_writers_none_is_lost_or_half_there(
    etcd_site: EtcdSite,
) -> None:
    stores = [await etcd_site.open() for _ in range(3)]

    async def write(store: ObjectStore, number: int) -> None:
        for turn in range(3):
            found = (await store.list("GWRoute")).items
            revisions = {stored.key: stored.revision for stored in found}
            body = b"%d-%d" % (number, turn)
            operations = [Put(key(i), body, revisions.get(key(i), 0)) for i in range(150)]
            with suppress(CommitConflict):
                await store.carry_out(operations)
            await store.commit(Put(Key("Node", "", f"n{number}-{turn}"), b"1", 0))

    await asyncio.gather(*(write(store, number) for number, store in enumerate(stores)))
    assert len(set(await bodies(stores[0]))) == 1
    assert len((await stores[0].list("Node")).items) == 9


class Dying:
    """An engine whose process dies with one of its requests, before or after it happens."""

    def __init__(self, engine: EtcdEngine, calls: int, *, after: bool) -> None:
        self.left, self.after, self.txn = calls, after, engine._connection.call
        engine._connection.call = self.call  # type: ignore[method-assign]

    async def call(self, ask: Callable[..., object], *, writing: bool = False) -> object:
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise Unavailable("dead")
        answer = await self.txn(ask, writing=writing)  # type: ignore[arg-type]
        if self.left == 0:
            raise Unavailable("dead")
        return answer


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_writer_that_dies_at_any_step_leaves_all_or_nothing_and_holds_nobody_up(
    etcd_site: EtcdSite, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(journal, "_DEAD_SECONDS", 0.05)
    outcomes = []
    for calls in range(1, 40):
        engine = await etcd_site.open_engine()
        store = ObjectStore(engine, SCHEMA)
        dying = Dying(engine, calls, after=after)
        try:
            await store.carry_out(puts(MANY))
            is_acknowledged = True
        except Unavailable:
            is_acknowledged = False
        is_whole = dying.left > 0
        other = await etcd_site.open()
        found = (await other.list("GWRoute")).items
        assert len(found) in {0, MANY}, f"half a commit, dead at call {calls}"
        outcomes.append(bool(found))
        if is_acknowledged:
            assert found
        await other.commit(Put(Key("Node", "", f"n{calls}"), b"1", 0))
        if found:
            await other.carry_out([Delete(stored.key, stored.revision) for stored in found])
        if is_whole:
            break
    assert outcomes[0] is False or after
    assert outcomes[-1] is True
    assert outcomes == sorted(outcomes), "once it is complete it happens"


class Filling(Dying):
    """An engine one of whose writes is carried out and then refused, as by an etcd that grows full."""

    async def call(self, ask: Callable[..., object], *, writing: bool = False) -> object:
        answer = await self.txn(ask, writing=writing)  # type: ignore[arg-type]
        self.left -= writing
        if writing and self.left == 0:
            raise StorageFull("full")
        return answer


async def test_what_is_refused_for_lack_of_room_is_not_there_whichever_write_filled_it(
    etcd_site: EtcdSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_DEAD_SECONDS", 0.05)
    for calls in range(1, 40):
        engine = await etcd_site.open_engine()
        store = ObjectStore(engine, SCHEMA)
        filling = Filling(engine, calls, after=True)
        wanted = 0
        with suppress(OutcomeUnknown):
            try:
                await store.carry_out(puts(MANY))
                wanted = MANY
            except StorageFull:
                pass
            assert len(await bodies(store)) == wanted, f"full by write {calls}"
        other = await etcd_site.open()
        found = (await other.list("GWRoute")).items
        assert len(found) in {0, MANY}
        is_whole = filling.left > 0
        if found:
            await other.carry_out([Delete(stored.key, stored.revision) for stored in found])
        if is_whole:
            break
    assert wanted == MANY


async def test_a_journal_that_is_complete_is_carried_out_by_who_writes_next(
    etcd_site: EtcdSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await etcd_site.open(), await etcd_site.open()

    async def die(*_: object) -> list[int]:
        raise Unavailable("dead")

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "_carry_out", die)
        with pytest.raises(Unavailable, match="will be carried out"):
            await store.carry_out(puts(MANY))
    await other.commit(Put(Key("Node", "", "n"), b"1", 0))
    assert len(await bodies(other)) == MANY


async def test_large_objects_are_packed_and_those_that_cannot_be_are_refused(etcd_site: EtcdSite) -> None:
    store = await etcd_site.open()
    line = b'{"address":"10.%d.2.3","tunnel":%d},'
    body = b"".join(line % (number % 250, number) for number in range(100_000))
    assert len(body) > 3 << 20
    revision = await store.commit(Put(key(1), body, 0))
    assert (await store.get(key(1))).body == body
    async for batch in store.watch(None, None, revision - 1):
        (event,) = batch.events
        assert event.object is not None and event.object.body == body  # type: ignore[union-attr]
        break
    with pytest.raises(Invalid, match=r"GWRoute/shop/r0002: \d+ bytes in etcd"):
        await store.commit(Put(key(2), os.urandom(1 << 21), 0))
    many = [Put(key(number), os.urandom(300_000), 0) for number in range(3, 20)]
    await store.carry_out(many)
    assert [stored.body for stored in (await store.list("GWRoute")).items[1:]] == [put.body for put in many]


@pytest.fixture
def open_cached(etcd: EtcdServer) -> Iterator[Callable[[], CachedStore]]:
    location = StoreLocation(etcd=etcd.settings(f"/test-{secrets.token_hex(4)}/"))
    opened: list[CachedStore] = []

    def open_one() -> CachedStore:
        opened.append(CachedStore(location))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def test_a_transaction_may_write_more_than_etcd_takes_at_once(
    open_cached: Callable[[], CachedStore],
) -> None:
    store = open_cached()
    with store.transaction() as transaction:
        made = [transaction.create(Account(metadata=Metadata(name=f"a{i}"))) for i in range(MANY)]
    with store.transaction() as transaction:
        for account in made:
            transaction.update(account.model_copy(update={"spec": AccountSpec(proxy_limit=7)}))
    with closing(open_cached()) as other:
        assert [found.spec.proxy_limit for found in other.list(Account)] == [7] * MANY
        assert other.list(Account) == store.list(Account)


def test_what_is_made_while_its_account_is_deleted_does_not_outlive_it(
    open_cached: Callable[[], CachedStore],
) -> None:
    one, other = open_cached(), open_cached()
    with one.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="shop")))
    other._thread.call(other._cache.reach(one.revision))
    route = {"metadata": {"name": "R1", "namespace": "shop"}, "spec": {"client-ref": {"uid": "R1"}}}
    with pytest.raises(Conflict, match="another process"), one.transaction() as deleting:
        assert deleting.list(GWRoute, "shop") == []
        deleting.delete(Account, "", "shop")
        with other.transaction() as making:
            making.get(Account, "", "shop")
            making.create(GWRoute.model_validate(route))
    with pytest.raises(Conflict, match="another process"), other.transaction() as making:
        making.get(Account, "", "shop")
        making.create(GWRoute.model_validate({**route, "metadata": {"name": "R2", "namespace": "shop"}}))
        with one.transaction() as deleting:
            for found in deleting.list(GWRoute, "shop"):
                deleting.delete(GWRoute, "shop", found.name)
            deleting.delete(Account, "", "shop")
    for store in (one, other):
        store._thread.call(store._cache.reach(max(one.revision, other.revision)))
        assert store.list(GWRoute) == []
