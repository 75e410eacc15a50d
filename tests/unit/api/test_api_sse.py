# SPDX-License-Identifier: Apache-2.0
"""Event streams: form, heartbeat, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from epic.api.sse import event, event_stream


async def silent() -> AsyncIterator[bytes]:
    yield event("first", {"a": 1})
    await asyncio.sleep(3600)


async def two() -> AsyncIterator[bytes]:
    yield b"1"
    yield b"2"


async def test_a_silent_stream_gets_comment_lines() -> None:
    body = event_stream(silent(), asyncio.Event(), heartbeat=0.01).body_iterator
    async with asyncio.timeout(60):
        assert await anext(body) == b'event: first\ndata: {"a":1}\n\n'
        assert await anext(body) == b": still here\n\n"
        assert await anext(body) == b": still here\n\n"


async def test_a_stream_ends_with_its_events() -> None:
    body = event_stream(two(), asyncio.Event()).body_iterator
    assert [part async for part in body] == [b"1", b"2"]


async def test_a_stream_ends_when_the_process_does() -> None:
    closing = asyncio.Event()
    body = event_stream(silent(), closing).body_iterator
    await anext(body)
    asyncio.get_running_loop().call_later(0.02, closing.set)
    async with asyncio.timeout(60):
        assert [part async for part in body] == []
