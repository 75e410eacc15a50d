# SPDX-License-Identifier: Apache-2.0
"""One client's delta-ADS stream at the server: what waits to be taken in, what is kept, and why it ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.kept import Context, Kept, RequestSize, request_size
from epic.ads.delta.protocol import Stream

# Requests that wait because the client does not read our responses; then no more are read from it.
_WAITING_BYTES = 8 << 20
_INSIST_SECONDS = 10.0
# Names to take in before others have their turn: a millisecond or two.
_MOST_AT_ONCE = 1000
NODE_ACCEPTED = "epic-node-accepted"
"""Initial metadata of a stream that is served, sent before anything else."""
NODE_REMOVED = "epic-node-removed"
"""Trailing metadata of a refused call: the node was removed, and is to drop all that it has of EPIC's."""


@dataclass(frozen=True)
class Refusal:
    """Why a node may not be served; `removed` says that it is not one any more."""

    message: str
    removed: bool = False
    code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED

    async def abort(self, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        """End the call with it."""
        metadata = ((NODE_REMOVED, "true"),) if self.removed else ()
        await context.abort(self.code, self.message, metadata)
        raise AssertionError("abort raises")


class Connection:
    """One stream of a node: its state, and the event that something is to be looked at."""

    def __init__(self, context: Context, stream: Stream, owner: str, kept: Kept) -> None:
        self.context = context
        self.stream = stream
        self._owner, self._sums, self._kept = owner, kept, 0
        self.refused: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self.wake = asyncio.Event()
        self.ended = False
        self._requests: deque[tuple[pb.DeltaDiscoveryRequest, RequestSize]] = deque()
        self._waiting = self._lasting = 0
        self._room = asyncio.Event()
        self._insist: asyncio.TimerHandle | None = None

    async def read_first(
        self, requests: AsyncIterator[pb.DeltaDiscoveryRequest]
    ) -> pb.DeltaDiscoveryRequest | None:
        """The first request, which waits from then on; None: there is none, or it is too much."""
        request = await anext(requests, None)
        return request if request is not None and self._add(request) else None

    async def read(self, requests: AsyncIterator[pb.DeltaDiscoveryRequest]) -> None:
        """Take in the client's requests till it ends the stream."""
        try:
            async for request in requests:
                if not self._add(request):
                    return
                while self._waiting > _WAITING_BYTES:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self.ended = True
            self.wake.set()

    def _add(self, request: pb.DeltaDiscoveryRequest) -> bool:
        """Have the request answered in its turn; not if it is too much."""
        size = request_size(request)
        if not self.count(size.lasting):
            return False
        self._requests.append((request, size))
        self._waiting += size.waiting
        self._lasting += size.lasting
        self.wake.set()
        return True

    def take(self) -> Iterator[pb.DeltaDiscoveryRequest]:
        """The requests that wait; each counts as waiting till the next is asked for."""
        while self._requests:
            request, size = self._requests.popleft()
            self._waiting -= size.waiting
            self._room.set()
            yield request
            self._lasting -= size.lasting
            self.count()

    def count(self, more: int = 0) -> bool:
        """Count what is kept now, and so much more; refuses the stream if that is too much."""
        now = self._lasting + self.stream.remembered + more
        words = self._sums.change(self._owner, self._kept, now)
        if words is not None:
            self.refuse(Refusal(words, code=grpc.StatusCode.RESOURCE_EXHAUSTED))
            return False
        self._kept = now
        return True

    def insist_later(self) -> None:
        """If the client has refused to let go of something, ask it again in a while."""
        if self._insist is None and self.stream.keeps:
            loop = asyncio.get_running_loop()
            self._insist = loop.call_later(_INSIST_SECONDS, self._ask_again)

    def refuse(self, refusal: Refusal) -> None:
        """End it for this reason, unless it ends for another one."""
        if not self.refused.done():
            self.refused.set_result(refusal)

    def end(self) -> None:
        """Nothing is sent any more, and nothing kept."""
        if self._insist is not None:
            self._insist.cancel()
        self._sums.change(self._owner, self._kept, 0)
        self._kept = 0

    def _ask_again(self) -> None:
        self._insist = None
        self.stream.insist()
        self.wake.set()


async def held_at_first(request: pb.DeltaDiscoveryRequest) -> dict[str, str]:
    """What the client has at the beginning: it may be 100,000 resources."""
    held: dict[str, str] = {}
    for number, (name, version) in enumerate(request.initial_resource_versions.items(), 1):
        held[name] = version
        if not number % _MOST_AT_ONCE:
            await asyncio.sleep(0)
    return held


async def first_of(
    requests: AsyncIterator[pb.DeltaDiscoveryRequest], connection: Connection
) -> pb.DeltaDiscoveryRequest | None:
    """The first request; None: the client has ended the stream, or it is refused."""
    reading = asyncio.create_task(connection.read_first(aiter(requests)))
    refused = connection.refused
    try:
        ends: set[asyncio.Future[Any]] = {reading, refused}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() and not refused.done() else None
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
