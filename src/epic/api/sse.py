# SPDX-License-Identifier: Apache-2.0
"""Server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from fastapi.responses import StreamingResponse

_HEARTBEAT_SECONDS = 10.0


def event(name: str, data: object) -> bytes:
    """One event; `data` is sent as one line of JSON."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def event_stream(
    events: AsyncIterator[bytes], closing: asyncio.Event, heartbeat: float = _HEARTBEAT_SECONDS
) -> StreamingResponse:
    """The reply that sends the events as they come, and a comment line when there is none for a while.

    It ends with the events, or when the process is `closing`.
    """
    return StreamingResponse(
        _sent(events, closing, heartbeat),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _sent(
    events: AsyncIterator[bytes], closing: asyncio.Event, heartbeat: float
) -> AsyncGenerator[bytes, None]:
    pending = asyncio.ensure_future(anext(events, None))
    end = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            await asyncio.wait({pending, end}, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if closing.is_set():
                return
            if not pending.done():
                yield b": still here\n\n"
                continue
            item = pending.result()
            if item is None:
                return
            yield item
            pending = asyncio.ensure_future(anext(events, None))
    finally:
        end.cancel()
        pending.cancel()
        with suppress(asyncio.CancelledError):
            await pending
        if isinstance(events, AsyncGenerator):
            await events.aclose()
