# SPDX-License-Identifier: Apache-2.0
"""Who is slow with what it writes keeps its own account waiting, and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from epic.api.access.write_slots import WriteSlots

MANY = 30


async def hold(slots: WriteSlots, stack: AsyncExitStack, account: str) -> int:
    """Take as many places as there are for the account; how many these were."""
    for held in range(MANY):
        try:
            async with asyncio.timeout(0.01):
                await stack.enter_async_context(slots.take(account))
        except TimeoutError:
            return held
    return MANY


async def test_an_account_has_only_some_of_the_places_and_administrators_have_their_own() -> None:
    slots = WriteSlots()
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "a") == 5
        assert await hold(slots, stack, "b") == 5
        assert [await hold(slots, stack, account) for account in "cde"] == [5, 5, 0]
        assert await hold(slots, stack, "") == 4
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "e") == 5


async def test_who_waited_gets_the_place_that_becomes_free() -> None:
    slots = WriteSlots()
    async with AsyncExitStack() as stack:
        assert await hold(slots, stack, "a") == 5
        waiting = asyncio.create_task(stack.enter_async_context(slots.take("a")))
        await asyncio.sleep(0)
        assert not waiting.done()
        await stack.aclose()
        await waiting


async def test_nothing_is_kept_of_accounts_that_do_not_write() -> None:
    slots = WriteSlots()
    for number in range(100):
        async with slots.take(f"a{number}"):
            pass
    assert len(slots._account) == 0


@pytest.mark.parametrize("account", ["a", ""])
async def test_a_place_comes_back_however_the_request_ends(account: str) -> None:
    slots = WriteSlots()
    for _ in range(MANY):
        with pytest.raises(RuntimeError):
            async with slots.take(account):
                raise RuntimeError
