# SPDX-License-Identifier: Apache-2.0
"""Who is slow, or asks for much, keeps its own account waiting, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, route_body
from starlette.types import Message

from epic.api.access import body_rate
from epic.api.access import slots as access_slots
from epic.api.access.slots import READS, WRITES, OfAccounts, Slots, TooManyWaiting, UntilAnswered
from epic.cache.store import CachedStore
from epic.model.base import Resource
from epic.model.resources import GWRoute, Tunnel

MANY = 30


async def hold(places: Slots, stack: AsyncExitStack, account: str) -> int:
    """Take as many places as there are for the account; how many these were."""
    for held in range(MANY):
        try:
            async with asyncio.timeout(0.01):
                await stack.enter_async_context(places.take(account))
        except TimeoutError:
            return held
    return MANY


async def test_an_account_has_only_some_of_the_places_and_administrators_have_their_own() -> None:
    slots = Slots(WRITES)
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "a") == 5
        assert await hold(slots, stack, "b") == 5
        assert [await hold(slots, stack, account) for account in "cde"] == [5, 5, 0]
        assert await hold(slots, stack, "") == 4
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "e") == 5


async def test_who_waited_gets_the_place_that_becomes_free() -> None:
    slots = Slots(WRITES)
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "a") == 5
        waiting = asyncio.create_task(stack.enter_async_context(slots.take("a")))
        await asyncio.sleep(0)
        assert not waiting.done()
        await stack.aclose()
        await waiting


async def test_there_are_fewer_places_than_threads_for_those_who_read_and_write() -> None:
    both = [WRITES, READS]
    assert sum(places.accounts + places.administrators for places in both) < 40


async def test_nothing_is_kept_of_accounts_that_have_no_place() -> None:
    slots = OfAccounts(5)
    for number in range(100):
        async with slots.take(f"a{number}"):
            assert len(slots) == 1
    assert len(slots) == 0


@pytest.mark.parametrize("account", ["a", ""])
async def test_a_place_comes_back_however_the_request_ends(account: str) -> None:
    slots = Slots(WRITES)
    for _ in range(MANY):
        with pytest.raises(RuntimeError):
            async with slots.take(account):
                raise RuntimeError


async def test_a_place_is_given_back_before_the_client_has_read_the_answer() -> None:
    slots = Slots(READS)
    answered = asyncio.Event()

    async def stuck(message: Message) -> None:
        answered.set()
        await asyncio.Event().wait()

    async def answer() -> None:
        async with UntilAnswered(slots.take("a")) as place:
            await place.returning(stuck)({"type": "http.response.start"})

    answers = [asyncio.create_task(answer()) for _ in range(MANY)]
    for task in answers:
        await answered.wait()
        async with asyncio.timeout(60), slots.take("a"):
            pass
        task.cancel()


async def test_only_so_many_requests_of_an_account_wait(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_slots, "_MOST_WAITING", 0)
    reply = await tenant.get(f"{API}/accounts/root/routes")
    assert (reply.status_code, reply.json()["reason"]) == (429, "TooManyRequests")
    assert "has too many requests open" in reply.json()["error"]
    assert int(reply.headers["retry-after"]) > 0
    assert (await tenant.post(f"{API}/accounts/root/routes", json=route_body())).status_code == 429
    assert (await tenant.get(f"{API}/accounts/root/routes", auth=ADMIN)).status_code == 200


async def test_who_waits_no_more_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_slots, "_MOST_WAITING", 1)
    places = OfAccounts(1)
    async with places.take("a"):
        waiting = asyncio.create_task(places.take("a").__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaiting):
            async with places.take("a"):
                pass
        waiting.cancel()
        await asyncio.wait([waiting])
        another = asyncio.create_task(places.take("a").__aenter__())
        await asyncio.sleep(0)
        assert not another.done()
    await another


async def test_bodies_that_do_not_come_keep_nobody_from_writing(tenant: httpx.AsyncClient) -> None:
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.release()
        await end.wait()
        yield b"{}"

    path = f"{API}/accounts/root/routes"
    waiting = [asyncio.create_task(tenant.post(path, content=slow())) for _ in range(10)]
    for _ in waiting:
        await begun.acquire()
    async with asyncio.timeout(30):
        assert (await tenant.post(path, json=route_body("R1"))).status_code == 302
    end.set()
    assert [(await task).status_code for task in waiting] == [400] * 10


@pytest.mark.parametrize(("path", "read"), [("routes", GWRoute), ("tunnels/status", Tunnel)])
async def test_an_account_that_reads_much_at_once_keeps_no_other_from_reading(
    path: str,
    read: type[Resource],
    tenant: httpx.AsyncClient,
    store: CachedStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, begun, go, known = [], threading.Semaphore(0), threading.Event(), store.list

    def slow(kind: Any, account: str | None = None) -> list[Any]:
        if kind is read:
            reading.append(account)
            begun.release()
            assert go.wait(30)
        return known(kind, account)

    monkeypatch.setattr(store, "list", slow)
    reads = [asyncio.create_task(tenant.get(f"{API}/accounts/root/{path}")) for _ in range(60)]
    async with asyncio.timeout(30):
        for _ in range(4):
            await asyncio.to_thread(begun.acquire)
        for _ in range(5):
            assert (await tenant.get(f"{API}/accounts/root/slices", auth=ADMIN)).status_code == 200
    assert len(reading) == 4
    go.set()
    assert {(await read).status_code for read in reads} == {200}


async def test_who_waited_to_read_is_refused_when_the_replies_before_were_too_much(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, known = threading.Semaphore(0), threading.Event(), store.list

    def slow(kind: Any, account: str | None = None) -> list[Any]:
        if kind is GWRoute:
            begun.release()
            assert go.wait(30)
        return known(kind, account)

    monkeypatch.setattr(store, "list", slow)
    monkeypatch.setattr(body_rate, "_OF_REPLIES", 1e9)
    path = f"{API}/accounts/root/routes"
    reads = [asyncio.create_task(tenant.get(path)) for _ in range(20)]
    async with asyncio.timeout(30):
        for _ in range(4):
            await asyncio.to_thread(begun.acquire)
    go.set()
    replies = [await read for read in reads]
    refused = [reply for reply in replies if reply.status_code != 200]
    # A place is free when a reply begins, and it counts when its body is sent.
    assert len(refused) >= 12
    assert {reply.status_code for reply in refused} == {429}
    assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)
    assert (await tenant.get(path, auth=ADMIN)).status_code == 200
