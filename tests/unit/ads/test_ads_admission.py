# SPDX-License-Identifier: Apache-2.0
"""Who is not served at a port is refused before anything that he sends is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_outcome import outcome

from epic.ads.delta.connection import Refusal
from epic.ads.identity.admission import Admission

DENIED = grpc.StatusCode.PERMISSION_DENIED


class Echo:
    """A server of one method of each kind, which counts what it parses."""

    def __init__(self, refusal: Refusal | None) -> None:
        self.parsed = 0
        self._refusal = refusal

    def _parse(self, raw: bytes) -> bytes:
        self.parsed += 1
        return raw

    async def one(self, request: bytes, context: object) -> bytes:
        return request

    async def many_to_one(self, requests: AsyncIterator[bytes], context: object) -> bytes:
        return b"".join([request async for request in requests])

    async def many(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request)

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[grpc.aio.Channel]:
        server = grpc.aio.server(interceptors=[Admission(lambda _: self._refusal)])
        methods = {
            "One": grpc.unary_unary_rpc_method_handler(self.one, self._parse),
            "ManyToOne": grpc.stream_unary_rpc_method_handler(self.many_to_one, self._parse),
            "Many": grpc.stream_stream_rpc_method_handler(self.many, self._parse),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.Echo", methods)])
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                yield channel
        finally:
            await server.stop(None)


async def asked(channel: grpc.aio.Channel, method: str, *requests: bytes) -> bytes:
    path = f"/a.Echo/{method}"
    if method == "One":
        return await channel.unary_unary(path)(requests[0], timeout=60)
    if method == "ManyToOne":
        return await channel.stream_unary(path)(iter(requests), timeout=60)
    return b"".join([reply async for reply in channel.stream_stream(path)(iter(requests), timeout=60)])


@pytest.mark.parametrize("method", ["One", "ManyToOne", "Many"])
async def test_calls_of_every_kind_are_refused_unread_with_what_belongs_to_it(
    tmp_path: Path, method: str
) -> None:
    echo = Echo(Refusal("not here", removed=True))
    async with echo.serving(tmp_path / "s") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await outcome(lambda: asked(channel, method, b"a" * 100_000))
    assert refused.value.code() == DENIED
    assert echo.parsed == 0


@pytest.mark.parametrize(("method", "requests"), [("One", 1), ("ManyToOne", 3), ("Many", 3)])
async def test_who_is_admitted_is_served_as_ever(tmp_path: Path, method: str, requests: int) -> None:
    echo = Echo(None)
    async with echo.serving(tmp_path / "s") as channel:
        assert await asked(channel, method, *[b"abc"] * requests) == b"abc" * requests
    assert echo.parsed == requests


async def test_a_method_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    async with Echo(None).serving(tmp_path / "s") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/a.Echo/None")(b"", timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
