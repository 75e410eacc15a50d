# SPDX-License-Identifier: Apache-2.0
"""What is followed for the workload nodes of accounts: whom a change wakes, and for whom nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import open_store
from workload_site import ACCOUNTS, piece, route, tunnel

from epic.cache.store import CachedStore
from epic.live import Live, Place
from epic.model.resources import GWEndpointSlice, GWRoute, Node, NodeStatus, Tunnel
from epic.reconcile.counts.workload_index import Told
from epic.store.objects import Key, Unreadable
from epic.tunnels import WorkloadNode
from epic.workloads import followed
from epic.workloads.followed import FollowedAccount, FollowedAccounts, News

N1, N2 = WorkloadNode("c", "n1"), WorkloadNode("c", "n2")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CachedStore]:
    store = open_store(tmp_path / "epic.db")
    put(store, Node.model_validate({"metadata": {"name": "e1"}, "spec": {"address": "192.0.2.1"}}))
    for number, account in enumerate(ACCOUNTS):
        put(store, route(account), piece(account, f"10.{number}.0.1"), tunnel(account, 7 + number))
    yield store
    store.close()


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
async def accounts(store: CachedStore, live: Live) -> FollowedAccounts:
    return FollowedAccounts(store, live, lambda _: None)


def put(store: CachedStore, *objects: Any) -> None:
    with store.transaction() as transaction:
        for obj in objects:
            transaction.create(obj)


def change(store: CachedStore, kind: Any, account: str, name: str, **parts: object) -> int:
    """Change parts of an object; returns the revision of that."""
    with store.transaction() as transaction:
        transaction.update(transaction.get(kind, account, name).model_copy(update=parts))
    return int(store.get(kind, account, name).metadata.resource_version)


async def ready() -> None:
    pass


@asynccontextmanager
async def following(account: FollowedAccount, node: WorkloadNode = N1) -> AsyncIterator[Callable[[], Any]]:
    """What gives a node's news, one after the other."""
    async with aclosing(account.news(node, ready)) as news:

        async def newest() -> News:
            async with asyncio.timeout(60):
                return await anext(news)

        yield newest


def endpoints(told: Told, proxy: str = "g1") -> set[str]:
    return {str(address) for part in told.endpoints[proxy] for address in part}


def names(told: Told) -> list[str]:
    return sorted(tunnel.name for tunnel in told.tunnels)


async def test_accounts_that_are_read_hold_up_none_that_was_read(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, free = followed._read, threading.Event()

    def slow(store: CachedStore, account: str) -> Any:
        assert account == "bank" or free.wait(60)
        return read(store, account)

    monkeypatch.setattr(followed, "_read", slow)
    with ExitStack() as stack:
        bank, *others = [stack.enter_context(accounts.of(name)) for name in ("bank", "a", "b", "c")]
        async with following(bank) as news:
            await news()
            waiting = [asyncio.create_task(anext(other.news(N1, ready))) for other in others]
            try:
                change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", "10.1.0.9").spec)
                assert endpoints((await news()).told) == {"10.1.0.9"}
            finally:
                free.set()
                await asyncio.gather(*waiting)


async def test_a_change_is_taken_in_by_the_account_whose_it_is(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    take = FollowedAccount.take

    def noted(account: FollowedAccount, *changes: Any) -> None:
        asked.append(account.account)
        take(account, *changes)

    monkeypatch.setattr(FollowedAccount, "take", noted)
    with accounts.of("shop") as shop, accounts.of("bank") as bank:
        async with following(shop) as news_of_shop, following(bank) as news_of_bank:
            await news_of_shop()
            await news_of_bank()
            change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", "10.1.0.9").spec)
            assert endpoints((await news_of_bank()).told) == {"10.1.0.9"}
            assert asked == ["bank"]
            moved = change(
                store,
                Node,
                "",
                "e1",
                spec=store.get(Node, "", "e1").spec.model_copy(update={"address": "192.0.2.9"}),
            )
            for news in (news_of_shop, news_of_bank):
                found = await news()
                assert found.told.epic_addresses == {"e1": "192.0.2.9"}
                assert found.revision >= moved


async def test_who_comes_later_is_told_as_of_all_that_was_looked_at(
    store: CachedStore, accounts: FollowedAccounts
) -> None:
    with accounts.of("shop") as shop, accounts.of("bank") as bank:
        async with following(shop) as news_of_shop, following(bank) as news_of_bank:
            await news_of_shop()
            await news_of_bank()
            change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", "10.1.0.9").spec)
            changed = (await news_of_bank()).revision
        async with following(shop, N2) as news:
            assert (await news()).revision == changed


async def test_a_pod_that_moves_wakes_nobody_but_its_nodes(
    store: CachedStore, accounts: FollowedAccounts
) -> None:
    put(store, tunnel("shop", 20, node="n2"), tunnel("shop", 21, node="n3"))
    with accounts.of("shop") as shop:
        async with AsyncExitStack() as stack:
            nodes = (N1, N2, WorkloadNode("c", "n3"))
            first, second, third = [await stack.enter_async_context(following(shop, n)) for n in nodes]
            for news in (first, second, third):
                await news()
            waiting = asyncio.create_task(third())
            change(store, GWEndpointSlice, "shop", "s1", spec=piece("shop", "10.0.0.1", node="n2").spec)
            assert endpoints((await second()).told) == {"10.0.0.1"}
            assert endpoints((await first()).told) == set()
            assert not waiting.done()
            spec = piece("shop", "10.0.0.1", node="n3").spec
            change(store, GWEndpointSlice, "shop", "s1", spec=spec)
            assert endpoints((await waiting).told) == {"10.0.0.1"}


async def test_reports_of_epic_nodes_and_tunnels_of_other_nodes_wake_nobody(
    store: CachedStore, accounts: FollowedAccounts
) -> None:
    put(store, other := tunnel("shop", 20, node="n2"))
    with accounts.of("shop") as shop, accounts.of("bank") as bank:
        async with following(shop) as news, following(bank) as later:
            await news()
            await later()
            waiting = asyncio.create_task(news())
            change(store, Node, "", "e1", status=NodeStatus(problems=("a problem",)))
            since = {"signing_since": other.spec.signing_since + timedelta(minutes=1)}
            change(store, Tunnel, "shop", "20", spec=other.spec.model_copy(update=since))
            change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", "10.1.0.9").spec)
            await later()
            assert not waiting.done()
            change(store, GWEndpointSlice, "shop", "s1", spec=piece("shop", "10.0.0.9").spec)
            assert endpoints((await waiting).told) == {"10.0.0.9"}


async def test_all_accounts_have_one_watch_of_the_store(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    watch = store.watch_batches

    def counted(since: int) -> Any:
        begun.append(since)
        return watch(since)

    monkeypatch.setattr(store, "watch_batches", counted)
    with accounts.of("shop") as shop, accounts.of("bank") as bank:
        for account in (shop, bank):
            async with following(account) as news:
                await news()
        assert len(begun) == 1


async def test_after_a_watch_that_failed_everything_is_read_anew(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "_PAUSE_SECONDS", 0)
    watch, failed = store.watch_batches, asyncio.Event()

    async def failing(since: int) -> AsyncIterator[Any]:
        await failed.wait()
        monkeypatch.setattr(store, "watch_batches", watch)
        raise RuntimeError("deletions are forgotten")
        yield

    monkeypatch.setattr(store, "watch_batches", failing)
    with accounts.of("shop") as shop:
        async with following(shop) as news:
            assert names((await news()).told) == ["7"]
            put(store, tunnel("shop", 20))
            failed.set()
            assert names((await news()).told) == ["20", "7"]


async def test_what_changes_while_everything_is_read_is_not_missed(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = followed._read

    def slow(*arguments: Any) -> Any:
        found = read(*arguments)
        with store.transaction() as transaction:
            transaction.delete(GWRoute, "shop", "r1")
        return found

    monkeypatch.setattr(followed, "_read", slow)
    with accounts.of("shop") as shop:
        async with following(shop) as news:
            while endpoints((await news()).told):
                pass


async def test_what_a_node_is_told_first_is_read_after_it_is_noted_that_it_may_be(
    store: CachedStore, live: Live, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tunnel("shop", 20))
    note = live.note_listing

    def released_before(place: Place) -> None:
        # Nobody waits for a node that was told nothing.
        assert not live.is_listed(place)
        with store.transaction() as transaction:
            transaction.delete(Tunnel, "shop", "20")
        note(place)

    monkeypatch.setattr(live, "note_listing", released_before)
    with accounts.of("shop") as shop:
        async with following(shop) as news:
            assert names((await news()).told) == ["7"]


async def test_who_is_not_ready_is_told_the_newest_then_and_nothing_of_in_between(
    store: CachedStore, accounts: FollowedAccounts
) -> None:
    free = asyncio.Event()
    free.set()

    async def is_free() -> None:
        await free.wait()

    async def change_and_take_in(number: int) -> None:
        change(store, GWEndpointSlice, "shop", "s1", spec=piece("shop", f"10.0.0.{number}").spec)
        change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", f"10.1.0.{number}").spec)
        assert endpoints((await later()).told) == {f"10.1.0.{number}"}

    with accounts.of("shop") as shop, accounts.of("bank") as bank:
        async with following(bank) as later, aclosing(shop.news(N1, is_free)) as news, asyncio.timeout(60):
            await later()
            await anext(news)
            free.clear()
            waiting = asyncio.create_task(anext(news))
            for number in (2, 3, 4):
                await change_and_take_in(number)
            assert not waiting.done()
            free.set()
            assert endpoints((await waiting).told) == {"10.0.0.4"}
            waiting = asyncio.create_task(anext(news))
            await change_and_take_in(5)
            assert endpoints((await waiting).told) == {"10.0.0.5"}


async def test_of_a_node_without_tunnels_it_is_not_noted_that_it_may_have_some(
    live: Live, accounts: FollowedAccounts
) -> None:
    with accounts.of("shop") as shop:
        for node, is_listed in ((N1, True), (N2, False)):
            async with following(shop, node) as news:
                await news()
            assert live.is_listed(Place("shop", node.cluster_id, node.name)) == is_listed


async def test_what_is_asked_for_anew_is_not_let_go_of_when_the_time_of_what_was_before_is_up(
    accounts: FollowedAccounts,
) -> None:
    with accounts.of("shop") as first:
        pass
    accounts._let_go(first)
    with accounts.of("shop") as used:
        assert used is not first
        accounts._let_go(first)
        with accounts.of("shop") as same:
            assert same is used
        assert accounts._watcher is not None


@pytest.mark.parametrize("kind", [Tunnel, GWEndpointSlice])
async def test_what_cannot_be_read_takes_nothing_from_a_node_that_waits_until_it_can(
    store: CachedStore, accounts: FollowedAccounts, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    name = "7" if kind is Tunnel else "s1"
    unreadable = Unreadable(Key(kind.kind, "shop", name), 1, "of another version")
    with monkeypatch.context() as patched:
        patched.setattr(store, "unreadable", lambda: [unreadable])
        with accounts.of("shop") as shop, accounts.of("bank") as bank:
            async with following(shop) as news, following(bank) as others:
                waiting = asyncio.create_task(news())
                assert names((await others()).told) == ["8"]
                change(store, GWEndpointSlice, "bank", "s1", spec=piece("bank", "10.1.0.9").spec)
                await others()
                assert not waiting.done()
                metadata = store.get(kind, "shop", name).metadata
                labels = {"labels": {"now": "readable"}}
                change(store, kind, "shop", name, metadata=metadata.model_copy(update=labels))
                assert names((await waiting).told) == ["7"]
