# SPDX-License-Identifier: Apache-2.0
"""The process: REST over TLS, services beside it, an end within three seconds whatever is open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from epic.api.sse import event_stream
from epic.control.serve import notify, serve
from epic.control.settings import RestSettings


async def endless() -> AsyncIterator[bytes]:
    yield b"event: first\n\n"
    await asyncio.sleep(3600)


def application(closing: asyncio.Event | None = None) -> FastAPI:
    app = FastAPI()
    never = asyncio.Event()
    app.add_api_route("/stream", lambda: event_stream(endless(), closing or never))
    return app


@pytest.mark.parametrize(("polite", "seconds"), [(True, 1), (False, 3)])
async def test_an_open_event_stream_does_not_hold_the_end(
    rest: RestSettings, announced: socket.socket, polite: bool, seconds: float
) -> None:
    closing = asyncio.Event()
    ended = asyncio.Event()

    async def service() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    app = application(closing if polite else None)
    serving = asyncio.create_task(serve(app, rest, {"other": service}, lambda _: closing.set()))
    assert await asyncio.to_thread(announced.recv, 64) == b"READY=1"
    trust = ssl.create_default_context(cafile=rest.certificate)
    async with httpx.AsyncClient(verify=trust) as client:
        url = f"https://localhost:{rest.port}/stream"
        async with client.stream("GET", url) as reply:
            assert await anext(reply.aiter_raw()) == b"event: first\n\n"
            start = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
    assert time.monotonic() - start < seconds
    assert ended.is_set()


@pytest.mark.parametrize(
    ("listen", "answered"),
    [("::", {"127.0.0.1", "::1"}), ("127.0.0.1", {"127.0.0.1"}), ("::1", {"::1"})],
)
async def test_it_listens_where_it_is_told_and_at_two_colons_to_both_families(
    rest: RestSettings, announced: socket.socket, listen: str, answered: set[str]
) -> None:
    rest = RestSettings.model_validate(rest.model_dump() | {"listen": listen})
    serving = asyncio.create_task(serve(application(), rest, {}))
    assert await asyncio.to_thread(announced.recv, 64) == b"READY=1"
    found = set()
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection(address, rest.port)
            writer.close()
            found.add(address)
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    assert found == answered


async def test_a_service_that_fails_ends_the_process_with_its_error(rest: RestSettings) -> None:
    statuses: list[int] = []

    async def failing() -> None:
        raise OSError("port is taken")

    with pytest.raises(OSError, match="port is taken"):
        await serve(application(), rest, {"xDS": failing}, statuses.append)
    # A thread that does not end must not make a success of it.
    assert statuses == [1]


async def test_a_service_that_ends_by_itself_is_an_error(rest: RestSettings) -> None:
    async def idle() -> None:
        return

    with pytest.raises(RuntimeError, match="service xDS ended by itself"):
        await serve(application(), rest, {"xDS": idle})


def test_only_who_asks_is_told(monkeypatch: pytest.MonkeyPatch, announced: socket.socket) -> None:
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("STOPPING=1")
    assert announced.recv(64) == b"READY=1"
    announced.setblocking(False)
    with pytest.raises(BlockingIOError):
        announced.recv(64)


def test_who_asked_and_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, announced: socket.socket) -> None:
    announced.close()
    notify("STOPPING=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notify("STOPPING=1")
