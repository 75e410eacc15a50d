# SPDX-License-Identifier: Apache-2.0
"""Services begin again after a fault, and end when they are to end."""

from __future__ import annotations

import asyncio

import pytest

from epic.agent.runtime.supervisor import Supervisor
from epic.supervise import keep_running


class Group:
    """A service of several tasks, of which one fails when it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = asyncio.Event()
        self.fail = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        self.begun.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fail())
            tasks.create_task(asyncio.Event().wait())

    async def _fail(self) -> None:
        await self.fail.wait()
        raise OSError("disk I/O error")

    async def fails(self, turns: int) -> None:
        """Let it begin, and fail; so many turns of the event loop later it may have told of it, or not."""
        await self.begun.wait()
        self.fail.set()
        for _ in range(turns):
            await asyncio.sleep(0)


async def ended(task: asyncio.Task[None]) -> bool:
    """Whether the task ends; it is ended in any case."""
    done, _ = await asyncio.wait({task}, timeout=60)
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    return bool(done)


@pytest.mark.parametrize("turns", range(8))
async def test_a_service_that_is_cancelled_while_it_fails_ends(turns: int) -> None:
    group = Group()
    task = asyncio.create_task(keep_running("it", group.run, first_delay=3600))
    await group.fails(turns)
    task.cancel()
    assert await ended(task)
    assert task.cancelled()
    assert group.runs == 1


@pytest.mark.parametrize("turns", range(8))
async def test_an_agent_that_is_stopped_while_a_task_fails_ends(turns: int) -> None:
    group, stop = Group(), asyncio.Event()
    supervisor = Supervisor()
    supervisor.add("it", group.run)
    task = asyncio.create_task(supervisor.run(stop))
    await group.fails(turns)
    stop.set()
    assert await ended(task)
    assert group.runs == 1


async def test_a_group_of_tasks_that_fails_again_and_again_begins_again_each_time() -> None:
    runs = 0
    often = asyncio.Event()

    async def fail() -> None:
        raise OSError("disk I/O error")

    async def service() -> None:
        nonlocal runs
        runs += 1
        if runs == 5:
            often.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    task = asyncio.create_task(keep_running("it", service, first_delay=0))
    await often.wait()
    task.cancel()
    assert await ended(task)


async def test_a_service_that_fails_begins_again() -> None:
    begun = asyncio.Event()
    faults = [OSError("once"), ValueError("twice")]

    async def service() -> None:
        if faults:
            raise faults.pop()
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(keep_running("it", service, first_delay=0))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
