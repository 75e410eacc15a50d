# SPDX-License-Identifier: Apache-2.0
"""Reconcilers in an event loop: in time, side by side, never two for one key, each failing alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from epic.workqueue.limits import Backoff
from epic.workqueue.runner import Reconciler, Runner, SystemClock


class FakeClock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._passed = asyncio.Event()

    def now(self) -> float:
        return self._now

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        until = None if seconds is None else self._now + seconds
        while not event.is_set() and (until is None or self._now < until):
            waits = [asyncio.create_task(e.wait()) for e in (event, self._passed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()

    async def pass_(self, seconds: float) -> None:
        self._now += seconds
        self._passed.set()
        self._passed = asyncio.Event()
        await settle()


async def settle() -> None:
    """Let everybody do what can be done without further time."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    reconcile: Callable[[str], Awaitable[float | None]], **settings: object
) -> AsyncIterator[tuple[Runner[str], FakeClock]]:
    clock = FakeClock()
    runner = Runner(Reconciler("it", reconcile, **settings), clock)  # type: ignore[arg-type]
    task = asyncio.create_task(runner.run())
    await settle()
    yield runner, clock
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_key_is_worked_on_when_it_is_due() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    async with running(reconcile) as (runner, clock):
        runner.add("later", 5)
        runner.add("now")
        await settle()
        assert seen == ["now"]
        await clock.pass_(4.9)
        assert seen == ["now"]
        await clock.pass_(0.2)
        assert seen == ["now", "later"]


async def test_keys_go_side_by_side_but_nobody_works_on_one_twice_at_a_time() -> None:
    active: list[str] = []
    seen: list[str] = []
    go = asyncio.Event()

    async def reconcile(key: str) -> None:
        assert key not in active
        active.append(key)
        seen.append(key)
        await go.wait()
        active.remove(key)

    async with running(reconcile, workers=2) as (runner, _):
        for key in "abca":
            runner.add(key)
        await settle()
        runner.add("a")
        await settle()
        assert active == ["a", "b"]
        go.set()
        await settle()
        assert (active, sorted(seen)) == ([], ["a", "a", "b", "c"])


async def test_key_that_fails_is_tried_ever_later_and_hinders_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []
    broken = True

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "bad" and broken:
            raise OSError("no disk")

    caplog.set_level(logging.INFO)
    async with running(reconcile, backoff=Backoff(1, 60)) as (runner, clock):
        runner.add("bad")
        runner.add("good")
        await settle()
        for seconds, times in ((1, 2), (1, 2), (1, 3), (3, 3), (1, 4)):
            await clock.pass_(seconds)
            assert seen.count("bad") == times
        assert seen.count("good") == 1
        broken = False
        await clock.pass_(8)
        assert runner.metrics().retries == 4
    told = [record.getMessage() for record in caplog.records]
    assert told == ["it bad: no disk; it is tried again", "it bad: it went well again"]


async def test_one_reconciler_that_hangs_or_fails_does_not_stop_another() -> None:
    seen: list[str] = []

    async def hang(key: str) -> None:
        await asyncio.Event().wait()

    async def fail(key: str) -> None:
        raise RuntimeError(key)

    async def work(key: str) -> None:
        seen.append(key)

    async with running(hang) as (first, _), running(fail) as (second, _), running(work) as (third, _):
        for runner in (first, second, third):
            runner.add("x")
        await settle()
        third.add("y")
        await settle()
        assert seen == ["x", "y"]
        assert (first.metrics().working, second.metrics().retries) == (1, 1)


async def test_work_without_end_is_given_up_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    gave_up = asyncio.Event()

    async def hang(key: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gave_up.set()

    async with running(hang, timeout=0.01) as (runner, _):
        runner.add("x")
        await gave_up.wait()
        await settle()
        assert runner.metrics().retries == 1
    assert "it x: it took too long; it is tried again" in caplog.text


async def test_what_asks_to_be_looked_at_again_is() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> float:
        seen.append(key)
        return 10.0

    async with running(reconcile) as (runner, clock):
        runner.add("x")
        await settle()
        await clock.pass_(10)
        await clock.pass_(5)
        assert seen == ["x", "x"]


async def test_what_was_interrupted_is_done_in_the_next_life() -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def reconcile(key: str) -> None:
        await go.wait()
        seen.append(key)

    async with running(reconcile) as (runner, _):
        runner.add("x")
        await settle()
        assert runner.metrics().working == 1
    go.set()
    task = asyncio.create_task(runner.run())
    await settle()
    assert seen == ["x"]
    task.cancel()


async def test_shut_down_ends_what_is_being_done_and_takes_nothing_new() -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def reconcile(key: str) -> None:
        await go.wait()
        seen.append(key)

    runner = Runner(Reconciler("it", reconcile), SystemClock())
    task = asyncio.create_task(runner.run())
    runner.add("x")
    runner.add("y")
    await settle()
    runner.shut_down()
    runner.add("z")
    await settle()
    assert not task.done()
    go.set()
    await task
    assert seen == ["x"]


async def test_real_time_wakes_it_too() -> None:
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        done.set()

    runner = Runner(Reconciler("it", reconcile))
    task = asyncio.create_task(runner.run())
    runner.add("x", 0.01)
    await done.wait()
    task.cancel()
