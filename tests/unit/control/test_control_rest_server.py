# SPDX-License-Identifier: Apache-2.0
"""Connections that ask nothing end by themselves; those that ask are served as long as they like."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from fastapi import FastAPI, Request

from epic.api.sse import event_stream
from epic.control import rest_server
from epic.control.rest_server import RestServer
from epic.control.serve import _listening_socket
from epic.control.settings import RestSettings

GET = b"GET /slow HTTP/1.1\r\nHost: epic\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: epic\r\nContent-Length: 5\r\n\r\n"
LARGE = 30_000_000
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


LIMITS = ("_HANDSHAKE_SECONDS", "_HEADER_SECONDS", "_BODY_SECONDS", "_TAKE_SECONDS")
# Long for who is served on a busy machine, short for who waits until it is over.
LIMIT_SECONDS = 1.0


async def ticks() -> AsyncIterator[bytes]:
    while True:
        yield b"event: tick\n\n"
        await asyncio.sleep(0.05)


def application() -> FastAPI:
    app = FastAPI()
    never = asyncio.Event()

    async def slow() -> str:
        await asyncio.sleep(1.5 * LIMIT_SECONDS)
        return "done"

    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    async def client(request: Request) -> str:
        return request.client.host if request.client else ""

    app.add_api_route("/client", client)
    app.add_api_route("/stream", lambda: event_stream(ticks(), never))
    app.add_api_route("/slow", slow)
    app.add_api_route("/large", lambda: "x" * LARGE)
    app.add_api_route("/echo", echo, methods=["POST"])
    return app


@pytest.fixture
async def server(rest: RestSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RestServer]:
    for name in LIMITS:
        monkeypatch.setattr(rest_server, name, LIMIT_SECONDS)
    monkeypatch.setattr(rest_server, "_STREAMS_MAY_END_SECONDS", 0.1)
    server = RestServer(application(), rest)
    serving = asyncio.create_task(server.serve([_listening_socket(rest)]))
    await server.listening.wait()
    yield server
    server.should_exit = True
    await serving


async def connect(rest: RestSettings, *, tls: bool = True) -> Client:
    context = ssl.create_default_context(cafile=rest.certificate) if tls else None
    return await asyncio.open_connection("localhost", rest.port, ssl=context, limit=1 << 20)


async def the_rest(client: Client) -> bytes:
    """What still comes, until the server closes."""
    with suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(60):
            return await client[0].read()
    return b""


async def none_is_open(server: RestServer) -> None:
    async with asyncio.timeout(60):
        while len(server.connections):  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


async def test_no_part_of_a_reply_waits_for_the_client_to_have_acknowledged_the_one_before(
    server: RestServer, rest: RestSettings
) -> None:
    reader, writer = await connect(rest)
    writer.write(b"GET /client HTTP/1.1\r\nHost: epic\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    (protocol,) = server.server_state.connections
    accepted = protocol.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()


async def test_a_handshake_that_does_not_come_is_not_waited_for(
    server: RestServer, rest: RestSettings
) -> None:
    client = await connect(rest, tls=False)
    assert await the_rest(client) == b""
    await none_is_open(server)


@pytest.mark.parametrize("sent", [b"", GET, POST, POST + b"abc"], ids=["nothing", "head", "no body", "body"])
async def test_a_request_that_does_not_come_whole_is_not_waited_for(
    server: RestServer, rest: RestSettings, sent: bytes
) -> None:
    client = await connect(rest)
    client[1].write(sent)
    assert await the_rest(client) == b""
    await none_is_open(server)


async def test_drops_of_a_request_do_not_prolong_its_time(server: RestServer, rest: RestSettings) -> None:
    client = await connect(rest)
    closed = asyncio.create_task(the_rest(client))
    with suppress(ConnectionError):
        while not closed.done():
            client[1].write(b"G")
            await asyncio.sleep(0.05)
    assert await closed == b""


async def test_the_second_request_of_a_connection_has_its_time_as_well(
    server: RestServer, rest: RestSettings
) -> None:
    client = await connect(rest)
    client[1].write(POST + b"hello")
    async with asyncio.timeout(60):
        await client[0].readuntil(b'"hello"')
    client[1].write(GET)
    assert await the_rest(client) == b""
    await none_is_open(server)


async def test_an_answer_and_a_stream_may_take_longer(server: RestServer, rest: RestSettings) -> None:
    answered, streamed = await connect(rest), await connect(rest)
    answered[1].write(GET + b"\r\n")
    streamed[1].write(GET.replace(b"slow", b"stream") + b"\r\n")
    assert await answered[0].readline() == b"HTTP/1.1 200 OK\r\n"
    async with asyncio.timeout(60):
        for _ in range(30):
            await streamed[0].readuntil(b"event: tick")


async def test_a_reply_that_is_not_taken_is_not_kept_for_ever(
    server: RestServer, rest: RestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = GET.replace(b"slow", b"large") + b"\r\n"
    idle = await connect(rest)
    idle[1].write(large + large)
    await none_is_open(server)
    monkeypatch.setattr(rest_server, "_TAKE_SECONDS", 60.0)
    taken = await connect(rest)
    taken[1].write(large.replace(b"Host", b"Connection: close\r\nHost"))
    assert (await the_rest(taken)).count(b"x") >= LARGE


async def test_a_connection_takes_little_memory_and_a_body_of_any_size(
    server: RestServer, rest: RestSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LIMITS:
        monkeypatch.setattr(rest_server, name, 60.0)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    clients = [await connect(rest, tls=True) for _ in range(4)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Both ends of each are in this process.
    assert (after - before) / len(clients) < 2 * 100_000
    reader, writer = clients[0]
    body = b"x" * 300_000
    writer.write(POST.replace(b"5", str(len(body)).encode()) + body)
    async with asyncio.timeout(60):
        assert body in await reader.readuntil(b'x"')


async def test_a_connection_may_be_used_again_and_again(server: RestServer, rest: RestSettings) -> None:
    reader, writer = await connect(rest)
    for _ in range(3):
        writer.write(POST + b"hello")
        async with asyncio.timeout(60):
            await reader.readuntil(b'"hello"')
        await asyncio.sleep(0.6 * LIMIT_SECONDS)  # a part of the time that each request has of its own
    assert len(server.connections) == 1
    writer.close()
    await none_is_open(server)


@pytest.mark.usefixtures("server")
async def test_a_client_is_who_is_connected_whatever_a_header_says(rest: RestSettings) -> None:
    client = await connect(rest)
    head = b"GET /client HTTP/1.1\r\nHost: epic\r\nConnection: close\r\n"
    client[1].write(head + b"X-Forwarded-For: nobody\r\n\r\n")
    assert b'"127.0.0.1"' in await the_rest(client)
