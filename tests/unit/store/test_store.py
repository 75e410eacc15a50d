# SPDX-License-Identifier: Apache-2.0
"""What the control plane's store does on every engine: objects, transactions, revisions, watches, privacy."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from epic.cache import history
from epic.errors import AlreadyExists, Conflict, NotFound
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec, Node, NodeSpec
from epic.store.interface import Change, Store


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Store:
    return reopen()


def account(name: str, limit: int = 20) -> Account:
    return Account(metadata=Metadata(name=name), spec=AccountSpec(proxy_limit=limit))


def node(name: str, address: str) -> Node:
    return Node(metadata=Metadata(name=name), spec=NodeSpec(address=address))


def with_limit(obj: Account, limit: int) -> Account:
    return obj.model_copy(update={"spec": AccountSpec(proxy_limit=limit)})


def create(store: Store, *objects: Account) -> None:
    with store.transaction() as transaction:
        for obj in objects:
            transaction.create(obj)


def test_created_object_is_read_back_with_version_and_time(store: Store) -> None:
    create(store, account("a", 3))
    found = store.get(Account, "", "a")
    assert found.spec.proxy_limit == 3
    assert found.metadata.resource_version == store.revision
    assert found.metadata.creation_timestamp is not None


def test_objects_survive_reopening(reopen: Callable[[], Store]) -> None:
    first = reopen()
    create(first, account("a"), account("b"))
    again = reopen()
    assert [a.name for a in again.list(Account)] == ["a", "b"]
    assert again.list(Account) == first.list(Account)
    assert again.revision >= first.revision


def test_missing_object_is_named_in_the_error(store: Store) -> None:
    with pytest.raises(NotFound, match="Account 'a' does not exist"):
        store.get(Account, "", "a")


def test_second_create_is_refused_and_rolls_the_transaction_back(store: Store) -> None:
    create(store, account("a"))
    revision = store.revision
    with pytest.raises(AlreadyExists, match="Account 'a'"):
        create(store, account("b"), account("a"))
    assert [a.name for a in store.list(Account)] == ["a"]
    assert store.revision == revision


def test_reads_in_a_transaction_see_its_writes_and_others_do_not(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.create(account("a"))
        assert transaction.get(Account, "", "a").name == "a"
        assert store.list(Account) == []
    assert len(store.list(Account)) == 1


def test_a_rolled_back_revision_is_not_mistaken_for_another_object(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
        transaction.create(account("a", 1))
        transaction.get(Account, "", "a")
        raise ZeroDivisionError
    create(store, account("b", 2))
    assert store.get(Account, "", "b").spec.proxy_limit == 2


def test_update_of_an_old_version_is_refused(store: Store) -> None:
    create(store, account("a"))
    old = store.get(Account, "", "a")
    with store.transaction() as transaction:
        transaction.update(with_limit(old, 1))
    with pytest.raises(Conflict, match="read it again"), store.transaction() as transaction:
        transaction.update(with_limit(old, 2))
    assert store.get(Account, "", "a").spec.proxy_limit == 1


def test_generation_counts_changes_of_the_spec(store: Store) -> None:
    create(store, account("a", 1))
    with store.transaction() as transaction:
        updated = transaction.update(with_limit(transaction.get(Account, "", "a"), 2))
    assert updated.metadata.generation == 2
    assert store.get(Account, "", "a") == updated


def test_update_without_a_change_keeps_the_version(store: Store) -> None:
    create(store, account("a"))
    revision = store.revision
    with store.transaction() as transaction:
        transaction.update(transaction.get(Account, "", "a"))
    assert store.revision == revision


def test_deleted_object_is_gone_and_can_be_created_again(store: Store) -> None:
    create(store, account("a", 1))
    with store.transaction() as transaction:
        transaction.delete(Account, "", "a")
    assert store.list(Account) == []
    create(store, account("a", 2))
    assert store.get(Account, "", "a").spec.proxy_limit == 2


def test_list_is_limited_to_kind_and_account(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.create(account("a"))
        transaction.create(node("n", "192.0.2.1"))
        transaction.create(Account(metadata=Metadata(name="x", namespace="other")))
    assert [a.name for a in store.list(Account, "other")] == ["x"]
    assert [n.name for n in store.list(Node)] == ["n"]


def test_sequences_count_from_one_and_never_repeat(reopen: Callable[[], Store]) -> None:
    with reopen().transaction() as transaction:
        assert [transaction.next_number("t") for _ in range(3)] == [1, 2, 3]
    with reopen().transaction() as transaction:
        assert (transaction.next_number("t"), transaction.next_number("u")) == (4, 1)


def test_concurrent_writers_lose_nothing(store: Store) -> None:
    def write(prefix: str) -> None:
        for i in range(20):
            create(store, account(f"{prefix}{i}"))

    threads = [threading.Thread(target=write, args=(p,)) for p in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list(Account)) == 60
    assert max(found.metadata.resource_version for found in store.list(Account)) == store.revision


async def next_changes(store: Store, since: int, count: int) -> list[Change]:
    found = []
    async with asyncio.timeout(60):
        async for change in store.watch(since):
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_watch_replays_what_is_newer_then_follows(store: Store) -> None:
    create(store, account("a"))
    since = store.revision
    create(store, account("b"))
    watching = asyncio.create_task(next_changes(store, since, 2))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(create, store, account("c"))
    versions = [store.get(Account, "", name).metadata.resource_version for name in "bc"]
    assert [(c.revision, c.name) for c in await watching] == list(zip(versions, "bc", strict=True))


async def test_watch_tells_of_deletions(store: Store) -> None:
    create(store, account("a"))
    since = store.revision
    with store.transaction() as transaction:
        transaction.delete(Account, "", "a")
    assert await next_changes(store, since, 1) == [Change(store.revision, "Account", "", "a", None)]


async def test_watch_gives_the_object_with_its_version(store: Store) -> None:
    create(store, account("a", 7))
    (change,) = await next_changes(store, 0, 1)
    assert isinstance(change.object, Account)
    assert change.object == store.get(Account, "", "a")
    assert change.object.metadata.resource_version == store.revision


async def test_watch_from_before_forgotten_deletions_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DELETIONS_KEPT", 1)
    create(store, account("x"))
    since = store.revision
    for name in "abc":
        create(store, account(name))
        with store.transaction() as transaction:
            transaction.delete(Account, "", name)
    with pytest.raises(Conflict, match="watch from the store's revision"):
        await next_changes(store, since, 1)
    since = store.revision
    create(store, account("d"))
    assert [c.name for c in await next_changes(store, since, 1)] == ["d"]


async def test_watch_from_before_the_store_was_opened_is_refused(reopen: Callable[[], Store]) -> None:
    first = reopen()
    create(first, account("a"))
    since = first.revision
    create(first, account("b"))
    again = reopen()
    with pytest.raises(Conflict, match="watch from the store's revision"):
        await next_changes(again, since, 1)
    assert [c.name for c in await next_changes(again, 0, 2)] == ["a", "b"]


def test_file_is_private_to_its_owner(store: Store, tmp_path: Path) -> None:
    create(store, account("a"))
    for file in tmp_path.glob("epic.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)
