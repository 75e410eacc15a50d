# SPDX-License-Identifier: Apache-2.0
"""The control plane's store among other writers, and when it is not known whether a write happened."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from etcd_server import EtcdServer

from epic.cache import history
from epic.cache.store import CachedStore
from epic.errors import AlreadyExists, Conflict, Damaged, NotWritable, OutcomeUnknown
from epic.kinds.registry import KINDS
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec
from epic.model.runs import Run, RunSpec
from epic.store.engine import Committed, Refused, Transaction
from epic.store.interface import Change
from epic.store.location import StoreLocation
from epic.store.objects import Key, Put


def account(name: str, limit: int = 20) -> Account:
    return Account(metadata=Metadata(name=name), spec=AccountSpec(proxy_limit=limit))


def create(store: CachedStore, *names: str) -> list[Account]:
    with store.transaction() as transaction:
        return [transaction.create(account(name)) for name in names]


def names(store: CachedStore) -> list[str]:
    return [found.name for found in store.list(Account)]


def put_raw(store: CachedStore, key: Key, body: bytes, expected: int) -> int:
    """Write as a tool would that knows nothing of the control plane's transactions."""
    return store._thread.call(store._store.commit(Put(key, body, expected)))


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def store(reopen: Callable[[], CachedStore]) -> CachedStore:
    return reopen()


def test_what_another_process_writes_is_seen(reopen: Callable[[], CachedStore]) -> None:
    one, other = reopen(), reopen()
    create(one, "a")
    eventually(lambda: names(other) == ["a"])
    create(other, "b")
    assert names(other) == ["a", "b"]
    eventually(lambda: names(one) == ["a", "b"])


def test_closing_waits_for_the_write_that_has_begun_and_none_begins_afterwards(
    reopen: Callable[[], CachedStore],
) -> None:
    store = reopen()
    begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction() as transaction:
            begun.set()
            may_end.wait(60)
            transaction.create(account("a"))

    writer, closer = threading.Thread(target=write), threading.Thread(target=store.close)
    writer.start()
    assert begun.wait(60)
    closer.start()
    closer.join(0.3)
    assert closer.is_alive()
    may_end.set()
    for thread in (writer, closer):
        thread.join(60)
    with pytest.raises(NotWritable) as refused:
        create(store, "b")
    assert refused.value.detail == "the store is closed"
    assert names(reopen()) == ["a"]


def test_transactions_of_two_processes_do_not_decide_by_what_the_other_changes(
    reopen: Callable[[], CachedStore],
) -> None:
    one, other = reopen(), reopen()
    refused = 0

    def write(store: CachedStore) -> None:
        nonlocal refused
        for _ in range(20):
            try:
                with store.transaction() as transaction:
                    transaction.create(account(f"a{len(transaction.list(Account))}"))
            except Conflict:
                refused += 1

    threads = [threading.Thread(target=write, args=(store,)) for store in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(names(one)) == len(names(other)) == 40 - refused)
    if one.location.sqlite:
        assert not refused, "they wait for each other"


def test_numbers_are_given_out_once_whoever_asks(reopen: Callable[[], CachedStore]) -> None:
    stores = reopen(), reopen()
    given: list[int] = []
    while len(given) < 20:
        try:
            with stores[len(given) % 2].transaction() as transaction:
                number = transaction.next_number("t")
        except Conflict:
            continue
        given.append(number)
    assert given == list(range(1, 21))


@pytest.fixture
def etcd_store(etcd: EtcdServer) -> Iterator[CachedStore]:
    """Where others can write while a transaction goes on."""
    settings = etcd.settings(f"/test-{secrets.token_hex(4)}/")
    with closing(CachedStore(StoreLocation(etcd=settings))) as store:
        yield store


def test_a_transaction_that_another_process_overtook_is_refused_whole(etcd_store: CachedStore) -> None:
    other = CachedStore(etcd_store.location)
    with pytest.raises(Conflict, match="another process"), etcd_store.transaction() as transaction:
        # Nothing that both write: it may have decided by what the other one changed.
        assert transaction.list(Account) == []
        transaction.create(account("a"))
        create(other, "b")
    other.close()
    eventually(lambda: names(etcd_store) == ["b"])
    create(etcd_store, "a")
    assert names(etcd_store) == ["a", "b"]


def test_a_created_object_has_the_version_that_is_stored_whoever_wrote_in_between(
    etcd_store: CachedStore,
) -> None:
    with etcd_store.transaction() as transaction:
        made = transaction.create(account("a"))
        body = b'{"metadata":{"name":"b"},"spec":{}}'
        put_raw(etcd_store, Key("Account", "", "b"), body, 0)
    assert made.metadata.resource_version == etcd_store.get(Account, "", "a").metadata.resource_version
    with etcd_store.transaction() as transaction:
        transaction.update(made.model_copy(update={"spec": AccountSpec(proxy_limit=3)}))
    assert names(etcd_store) == ["a", "b"]


def test_an_object_that_a_tool_changed_under_a_transaction_is_not_overwritten(
    etcd_store: CachedStore,
) -> None:
    (made,) = create(etcd_store, "a")
    with pytest.raises(Conflict), etcd_store.transaction() as transaction:
        transaction.update(made.model_copy(update={"spec": AccountSpec(proxy_limit=3)}))
        body = KINDS.of(made).encode(account("a", 7))
        put_raw(etcd_store, Key("Account", "", "a"), body, made.metadata.resource_version)
    eventually(lambda: etcd_store.get(Account, "", "a").spec.proxy_limit == 7)


def test_what_is_created_and_deleted_in_one_transaction_was_never_there(store: CachedStore) -> None:
    create(store, "a")
    revision = store.revision
    with store.transaction() as transaction:
        transaction.create(account("b"))
        transaction.delete(Account, "", "b")
    assert store.revision == revision


def test_an_object_that_cannot_be_read_is_told_and_is_not_gone_and_keeps_nobody_from_writing(
    reopen: Callable[[], CachedStore],
) -> None:
    store = reopen()
    (made, _) = create(store, "a", "b")
    since = store.revision
    revision = put_raw(store, Key("Account", "", "a"), b"{}", made.metadata.resource_version)
    eventually(lambda: store.revision >= revision)
    assert store.changes(since) == []
    for found in (store, reopen()):
        assert names(found) == ["b"]
        (unreadable,) = found.unreadable()
        assert (unreadable.key, unreadable.revision) == (Key("Account", "", "a"), revision)
        assert unreadable.value == b"{}"
        assert "metadata" in unreadable.reason
        with pytest.raises(Damaged, match="Account 'a' cannot be read"):
            found.find(Account, "", "a")
        assert found.exists(Account, "", "a")
        with pytest.raises(AlreadyExists):
            create(found, "a")
    create(store, "c")
    assert names(store) == ["b", "c"]


@pytest.mark.parametrize("is_made_anew", [True, False])
def test_an_object_that_cannot_be_read_can_be_deleted_or_replaced(
    reopen: Callable[[], CachedStore], is_made_anew: bool
) -> None:
    first = reopen()
    (made,) = create(first, "a")
    put_raw(first, Key("Account", "", "a"), b"{}", made.metadata.resource_version)
    store = reopen()
    with store.transaction() as transaction:
        transaction.delete(Account, "", "a")
        assert not transaction.exists(Account, "", "a")
        if is_made_anew:
            transaction.create(account("a", 7))
    for found in (store, reopen()):
        assert found.unreadable() == []
        assert [a.spec.proxy_limit for a in found.list(Account)] == ([7] if is_made_anew else [])


def test_a_sequence_that_cannot_be_read_goes_on_beyond_all_numbers_in_use(
    reopen: Callable[[], CachedStore],
) -> None:
    first = reopen()
    with first.transaction() as transaction:
        for _ in range(5):
            number = transaction.next_number("run")
        transaction.create(Run(metadata=Metadata(name=str(number)), spec=RunSpec(nodes=("e1",))))
        transaction.next_number("other")
    for name in ("run", "other", "transactions"):
        key = Key("Sequence", "", name)
        expected = first._thread.call(first._store.get(key)).revision
        put_raw(first, key, b"?", expected)
    store = reopen()
    with store.transaction() as transaction:
        assert transaction.next_number("run") == 100_006
        assert transaction.next_number("run") == 100_007
        assert transaction.next_number("other") == 100_001
    with reopen().transaction() as transaction:
        assert transaction.next_number("run") == 100_008


def interrupt(store: CachedStore, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Let the answer of the next commits be lost, after they have happened or before they do."""
    in_thread = store.location.sqlite is not None
    engine = store._engine.direct if in_thread else store._engine
    commit = engine.commit

    def lost(transaction: Transaction) -> Committed | Refused:
        if after:
            commit(transaction)
        raise OutcomeUnknown("no answer")

    async def lost_later(transaction: Transaction) -> Committed | Refused:
        if after:
            await commit(transaction)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(engine, "commit", lost if in_thread else lost_later)


@pytest.mark.parametrize("before", [(), ("x",)])
def test_a_write_whose_answer_is_lost_is_looked_for(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...]
) -> None:
    if before:
        create(store, *before)
    with monkeypatch.context() as patch:
        interrupt(store, patch, after=False)
        with pytest.raises(NotWritable, match="cannot write now"):
            create(store, "a")
    assert names(store) == [*before]
    with monkeypatch.context() as patch:
        interrupt(store, patch, after=True)
        (made,) = create(store, "a")
    assert made.metadata.resource_version == store.get(Account, "", "a").metadata.resource_version
    create(store, "b")
    assert names(store) == ["a", "b", *before]


async def test_a_watcher_hears_of_all_that_many_threads_write(store: CachedStore) -> None:
    since, heard = store.revision, set()
    writers = [asyncio.to_thread(lambda p=p: [create(store, f"{p}{i}") for i in range(10)]) for p in "abc"]
    writing = asyncio.gather(*writers)
    async with asyncio.timeout(20):
        async for change in store.watch(since):
            heard.add(change.name)
            if len(heard) == 30:
                break
    await writing


def test_a_store_that_is_closed_has_no_thread_and_can_be_opened_again(
    reopen: Callable[[], CachedStore],
) -> None:
    store = reopen()
    create(store, "a")
    store.close()
    store.close()
    assert names(reopen()) == ["a"]


async def next_change(store: CachedStore, since: int) -> Change:
    async with asyncio.timeout(60):
        async for change in store.watch(since):
            return change
    raise AssertionError


async def test_watch_from_before_forgotten_deletions_is_refused(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DELETIONS_KEPT", 1)
    create(store, "x")
    since = store.revision
    for name in "abc":
        create(store, name)
        with store.transaction() as transaction:
            transaction.delete(Account, "", name)
    with pytest.raises(Conflict, match="watch from the store's revision"):
        await next_change(store, since)
    since = store.revision
    create(store, "d")
    assert (await next_change(store, since)).name == "d"


async def test_watch_from_the_beginning_begins_with_what_is_there(
    reopen: Callable[[], CachedStore],
) -> None:
    create(reopen(), "a")
    assert (await next_change(reopen(), 0)).name == "a"


def test_a_store_may_be_closed_while_history_is_forgotten(
    reopen: Callable[[], CachedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic.store.compaction._INTERVAL_SECONDS", 0)
    for _ in range(10):
        reopen().close()
