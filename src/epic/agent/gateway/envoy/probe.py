"""Asking an Envoy on its admin socket whether it is ready, many times a second on one connection.

The connection breaks the moment the Envoy dies, so death is noticed without waiting for the next question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ASK_SECONDS = 0.15
_ABSENT_SECONDS = 0.05
_ANSWER_SECONDS = 2.0
_REQUEST = b"GET /ready HTTP/1.1\r\nhost: envoy\r\n\r\n"
_READY_BODY = b"LIVE"

_BROKEN = (OSError, EOFError, ValueError, TimeoutError)


async def watch_ready(socket: Path, tell: Callable[[bool], None]) -> None:
    """Call `tell` with each answer until cancelled; no answer is a no."""
    while True:
        with suppress(*_BROKEN):
            await _follow(socket, tell)
        tell(False)
        await asyncio.sleep(_ABSENT_SECONDS)


async def _follow(socket: Path, tell: Callable[[bool], None]) -> None:
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        while True:
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(_REQUEST)
                ready = await _answer(reader)
            tell(ready)
            await _until_broken(reader, _ASK_SECONDS if ready else _ABSENT_SECONDS)
    finally:
        writer.close()


async def _until_broken(reader: asyncio.StreamReader, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.readexactly(1)


async def _answer(reader: asyncio.StreamReader) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(b" ", 2)[1]
    if b"transfer-encoding: chunked" in head:
        body = await _chunks(reader)
    else:
        _, found, rest = head.partition(b"content-length:")
        if not found:
            raise ValueError("an answer without length")
        body = await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    return status == b"200" and body.startswith(_READY_BODY)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
