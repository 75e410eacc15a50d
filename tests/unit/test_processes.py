# SPDX-License-Identifier: Apache-2.0
"""Processes end with those who wait for them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from epic.processes import communicate

PIPE = asyncio.subprocess.PIPE


async def start(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def test_it_is_given_something_and_heard() -> None:
    process = await start("sh", "-c", "cat; echo bad >&2; exit 3")
    assert await communicate(process, b"good") == (b"good", b"bad\n")
    assert process.returncode == 3


async def test_it_ends_when_nobody_waits_for_it_any_more() -> None:
    process = await start("sleep", "1000")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await communicate(process)
    assert process.returncode == -9


async def test_that_it_ended_just_when_the_waiting_was_cancelled_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = await start("true")
    ended = asyncio.Event()
    read = process.communicate

    async def read_and_hang(given: bytes | None = None) -> tuple[bytes, bytes]:
        output = await read(given)
        ended.set()
        await asyncio.sleep(1000)
        return output

    monkeypatch.setattr(process, "communicate", read_and_hang)
    task = asyncio.create_task(communicate(process))
    await ended.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
