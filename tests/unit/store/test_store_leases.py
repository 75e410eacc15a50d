# SPDX-License-Identifier: Apache-2.0
"""Leases of the store on every engine."""

from __future__ import annotations

import asyncio
import json

import pytest
from store_sites import StoreSite
from stored import A

from epic.store.objects import CommitConflict, Put


async def test_one_holds_a_lease_and_the_next_gets_it_when_it_is_released(site: StoreSite) -> None:
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


async def test_who_lost_a_lease_can_commit_nothing_under_it(site: StoreSite) -> None:
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


async def test_waiting_can_be_given_up(site: StoreSite) -> None:
    store = await site.open()
    lease = await store.acquire("runs", "host-1", 5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await store.acquire("runs", "host-2", 5)
    await lease.release()
    await (await store.acquire("runs", "host-3", 5)).release()
