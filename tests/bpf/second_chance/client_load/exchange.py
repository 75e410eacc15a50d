# SPDX-License-Identifier: Apache-2.0
"""One connection with one request at a time, whatever its protocol: what is asked and must be answered."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
import zlib

PATIENCE = 5.0
SILENCE = 1.0
UP, DOWN = 40_000, 100_000
_COUNT, _AGAIN, _NEEDLESS = struct.Struct("=I"), 100, 216
"""Where struct tcp_info has tcpi_total_retrans and tcpi_dsack_dups."""


class Broken(Exception):
    """A connection that did not keep its word."""


class Hung(Broken):
    """One that says nothing."""


class Exchange(asyncio.Protocol):
    """One connection with one request at a time."""

    kind = ""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted: asyncio.Future[None] | None = None
        self.ended: str | None = None
        self.opened = time.monotonic()
        self.upstream: int | None = None
        """Milliseconds from the gateway to the backend and back, as the last answer says."""
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(type(exc).__name__ if exc else "ended")
        self.gone.set()

    def eof_received(self) -> None:
        self._fail("ended")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if self._wanted and not self._wanted.done() and self.take():
                self._wanted.set_result(None)
        except (Broken, ValueError, IndexError) as error:
            self._fail(f"{type(error).__name__} {error}")

    async def ask(self, number: int) -> None:
        """One request; Broken when it fails."""
        self._expect(number)
        self.send(number)
        await self._answered()

    async def start(self) -> None:
        """What comes before the first request."""

    @property
    def lost(self) -> int:
        """Segments that this end has sent again until now, but for those that the other had, as it said.

        0 if the connection is no more.
        """
        opened = self._transport.get_extra_info("socket")
        if self.ended or opened is None or opened.fileno() < 0:
            return 0
        found = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _NEEDLESS + _COUNT.size)
        (again,), (needless,) = (_COUNT.unpack_from(found, at) for at in (_AGAIN, _NEEDLESS))
        return int(again - needless)

    def close(self) -> None:
        self._transport.abort()

    def begin(self) -> None:
        """Send what a connection begins with."""

    def send(self, number: int) -> None:
        raise NotImplementedError

    def take(self) -> bool:
        """Whether the answer is whole; Broken if it is wrong."""
        raise NotImplementedError

    def _expect(self, number: int) -> None:
        if self.ended:
            raise Broken(self.ended)
        self._number = number
        self._wanted = asyncio.get_running_loop().create_future()

    async def _answered(self) -> None:
        assert self._wanted is not None
        telling = asyncio.get_running_loop().call_later(SILENCE, self._tell)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._wanted
        except TimeoutError:
            raise Hung("no answer") from None
        finally:
            telling.cancel()

    def _tell(self) -> None:
        """While it is silent others can still see what became of it."""
        port = self._transport.get_extra_info("sockname")[1]
        told = f"silent {port} {self.kind}, request {self._number}, {len(self._buffer)} bytes of the answer"
        print(told, file=sys.stderr, flush=True)

    def _fail(self, why: str) -> None:
        self.ended = self.ended or why
        if self._wanted and not self._wanted.done():
            self._wanted.set_exception(Broken(self.ended))


def body_of(number: int) -> bytes:
    """What a request carries."""
    return b"%08d" % number * (UP // 8) if number % 16 == 3 else b""


def path_of(number: int) -> bytes:
    """Which says how large the answer is."""
    return b"/%d?%d" % (number, DOWN if number % 16 == 7 else 0)


def check(number: int, answer: bytes) -> None:
    """Broken unless it is the answer to that request."""
    path = path_of(number)
    wanted = (b"%s %08x\n" % (path, zlib.crc32(body_of(number)))).ljust(int(path.partition(b"?")[2]), b".")
    if answer != wanted:
        raise Broken(f"answered {bytes(answer[:60])!r} instead of {wanted[:60]!r}")
