# SPDX-License-Identifier: Apache-2.0
"""Places for long work go round the accounts: one that asks for much keeps none of the others waiting."""

from __future__ import annotations

import asyncio

import pytest

from epic.workqueue.turns import AccountTurns


class Work:
    """Work of accounts that has its place until it is ended; `running` is in the order of beginning."""

    def __init__(self, places: int) -> None:
        self._turns = AccountTurns(places)
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str) -> None:
        """Ask for a place for each; the account is the first letter."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._run(name))
        await _settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await _settle()

    async def _run(self, name: str) -> None:
        async with self._turns.turn(name[0]):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_account_never_has_all_places_and_another_waits_for_nothing() -> None:
    work = Work(4)
    await work.begin(*(f"a{n}" for n in range(20)))
    assert work.running == ["a0", "a1", "a2"]
    await work.begin("b0")
    assert work.running == ["a0", "a1", "a2", "b0"]


async def test_a_place_that_gets_free_is_for_who_has_fewest_and_then_for_who_waits_longest() -> None:
    work = Work(3)
    await work.begin("a0", "a1", "b0", "a2", "b1", "c0", "d0")
    await work.end("b0")
    assert work.running == ["a0", "a1", "b1"], "b has none and came before c"
    await work.end("a0")
    assert work.running == ["a1", "b1", "c0"], "c and d have none"
    await work.end("a1")
    assert work.running == ["b1", "c0", "a2"], "a waits longer than d"
    await work.end("a2")
    assert work.running == ["b1", "c0", "d0"]


async def test_who_gives_up_keeps_no_place_waiting_or_not() -> None:
    work = Work(1)
    await work.begin("a0", "a1", "b0")
    work.tasks["a1"].cancel()
    work.tasks["a0"].cancel()
    await _settle()
    assert work.running == ["b0"]
    await work.begin("c0")
    await work.end("b0")
    assert work.running == ["c0"]


async def test_a_place_that_was_given_to_who_gave_up_at_that_moment_is_given_on() -> None:
    work = Work(1)
    await work.begin("a0", "b0", "c0")
    work.tasks["a0"].add_done_callback(lambda _: work.tasks["b0"].cancel())
    await work.end("a0")
    await _settle()
    assert work.running == ["c0"]


async def test_with_one_place_accounts_take_turns() -> None:
    work = Work(1)
    await work.begin("a0", "a1", "a2", "b0", "b1")
    order = []
    while work.running:
        order += work.running
        await work.end(*work.running)
    assert order == ["a0", "a1", "b0", "a2", "b1"]


@pytest.mark.parametrize("places", [1, 2, 4])
async def test_work_that_fails_gives_its_place_back(places: int) -> None:
    turns = AccountTurns(places)
    for _ in range(places + 1):
        with pytest.raises(ValueError, match="broken"):
            async with turns.turn("a"):
                raise ValueError("broken")
