# SPDX-License-Identifier: Apache-2.0
"""How a real Envoy of a gateway behaves towards clients of the world outside."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy_process import backend, free_port, needs_envoy
from google.protobuf.duration_pb2 import Duration
from test_ads_behaviour import request, running, snapshot

from epic.ads.snapshot import Snapshot
from epic.envoy.builders import listeners

pytestmark = needs_envoy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MANY = 1_100
"""More at once than Envoy lets through to a cluster of which nothing is said."""


def gateway(port: int, backend_port: int, **rules: str) -> Snapshot:
    """One whose port leads to a backend, by these path prefixes or by any."""
    matches = [{"path": {"value": path}} for path in rules.values()] or [{}]
    rule = {"matches": matches, "backendRefs": [{"name": "S1"}]}
    web = [{"name": "web", "port": port, "protocol": "HTTP"}]
    return snapshot(web, {"r": {"http": {"rules": [rule]}}}, {"S1": backend_port})


@asynccontextmanager
async def answering(answer: Callable[[Streams], Coroutine[Any, Any, None]]) -> AsyncIterator[int]:
    """A backend that does this with each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer((reader, writer))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=MANY) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        yield reader, writer
    writer.close()


async def head(streams: Streams, text: str) -> str:
    """The reply's head to a request's, in lower case."""
    streams[1].write(text.encode())
    return (await streams[0].readuntil(b"\r\n\r\n")).decode().lower()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_as_many_requests_as_come_are_at_a_backend_at_once(tmp_path: Path) -> None:
    port, arrived, all_there = free_port(), [0], asyncio.Event()

    async def wait_for_all(streams: Streams) -> None:
        await streams[0].readuntil(b"\r\n\r\n")
        arrived[0] += 1
        if arrived[0] == MANY:
            all_there.set()
        await all_there.wait()
        streams[1].write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async with answering(wait_for_all) as origin, running(tmp_path, gateway(port, origin)):
        async with asyncio.timeout(60):
            replies = await asyncio.gather(*(request(port) for _ in range(MANY)))
    assert set(replies) == {"ok"}


async def test_a_path_is_what_the_backend_sees_of_it_however_it_is_written(tmp_path: Path) -> None:
    port = free_port()
    async with backend("one") as origin, running(tmp_path, gateway(port, origin, a="/shop")):
        assert await request(port, "/shop") == "one"
        assert await request(port, "//shop") == "one"
        assert await request(port, "/x/../shop") == "one"
        assert await request(port, "/shop/../admin") == "404"
        async with connected(port) as streams:
            reply = await head(streams, "GET /shop/..%2Fadmin?a=%2F HTTP/1.1\r\nHost: h\r\n\r\n")
    assert reply.startswith("http/1.1 307 ")
    assert "location: /admin?a=%2f\r\n" in reply


async def test_a_header_that_backends_may_take_for_another_is_refused(tmp_path: Path) -> None:
    port = free_port()
    async with backend("one") as origin, running(tmp_path, gateway(port, origin)):
        assert await request(port, header="X-Role: admin") == "one"
        assert await request(port, header="X_Role: admin") == "400"


async def test_who_never_ends_its_headers_is_told_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "HEADERS_TIMEOUT", Duration(nanos=200_000_000))
    port = free_port()
    async with (
        backend("one") as origin,
        running(tmp_path, gateway(port, origin)),
        connected(port) as streams,
    ):
        assert (await head(streams, "GET / HTTP/1.1\r\nHost: h\r\n")).startswith("http/1.1 408 ")


async def test_a_websocket_is_let_through_with_what_both_sides_say(tmp_path: Path) -> None:
    port, upgrade = free_port(), "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    async def echo(streams: Streams) -> None:
        await head(
            streams, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while said := await streams[0].read(100):
            streams[1].write(said.upper())

    async with (
        answering(echo) as origin,
        running(tmp_path, gateway(port, origin)),
        connected(port) as streams,
    ):
        reply = await head(streams, f"GET /chat HTTP/1.1\r\nHost: h\r\n{upgrade}")
        assert reply.startswith("http/1.1 101 ")
        for said in (b"one", b"two"):
            streams[1].write(said)
            assert await streams[0].readexactly(3) == said.upper()
