# SPDX-License-Identifier: Apache-2.0
"""Load on a gateway: `client_load.py ADDRESS CONNECTIONS INTERVAL SHORT`, with Python's own library only.

CONNECTIONS kept-alive connections, a quarter each of HTTP/1.1, h2, WebSocket and TLS through a TCP listener,
each with one request at a time, one every INTERVAL seconds; one in sixteen carries 40 kB up, one 100 kB down.
Besides, SHORT connections a second with one request each. Says "ready" when all have answered, takes the name
of the phase to come from each line of its input, and at its end prints one JSON object: {"phases": {NAME:
{"requests", "slow", "held", "short", "worst": ms, "median": ms}}, "broken": [{"kind", "phase", "at",
"age", "why"}]}.

A broken connection is one that ends of itself, or on which a request is not answered rightly within PATIENCE
seconds; it is opened again. `slow` and `held` are requests over SLOW seconds, the latter because this process
itself did not get to run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
import time
import zlib
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TypeVar

HTTP, TLS = 80, 8443
Result = TypeVar("Result")
PATIENCE, SLOW = 5.0, 0.25
BEAT, PAUSE = 0.01, 0.02
UP, DOWN = 40_000, 100_000
WINDOW = 1 << 30
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


class Broken(Exception):
    """A connection that did not keep its word."""


@dataclass
class Phase:
    """What happened in it."""

    times: list[float] = field(default_factory=list)
    slow: int = 0
    held: int = 0
    short: int = 0


@dataclass(frozen=True)
class Break:
    """The end of a connection that should have gone on."""

    kind: str
    phase: str
    at: float
    age: float
    why: str


class Tally:
    """Of the whole run."""

    def __init__(self) -> None:
        self.phase = "start"
        self.phases: dict[str, Phase] = {}
        self.broken: list[Break] = []

    def now(self) -> Phase:
        return self.phases.setdefault(self.phase, Phase())

    def breaks(self, kind: str, phase: str, opened: float, why: str) -> None:
        now = time.monotonic()
        self.broken.append(Break(kind, phase, round(now, 3), round(now - opened, 3), why))

    def text(self) -> str:
        phases = {}
        for name, phase in self.phases.items():
            phases[name] = {
                "requests": len(phase.times),
                "slow": phase.slow,
                "held": phase.held,
                "short": phase.short,
                "worst": round(1000 * max(phase.times, default=0), 1),
                "median": round(1000 * median(phase.times or [0]), 2),
            }
        return json.dumps({"phases": phases, "broken": [asdict(each) for each in self.broken]})


class Exchange(asyncio.Protocol):
    """One connection with one request at a time."""

    kind = ""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted: asyncio.Future[None] | None = None
        self.ended: str | None = None
        self.opened = time.monotonic()
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
        try:
            async with asyncio.timeout(PATIENCE):
                await self._wanted
        except TimeoutError:
            raise Broken("hung") from None

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


class Http1(Exchange):
    """HTTP/1.1."""

    kind = "http1"
    last = False

    def send(self, number: int) -> None:
        body = body_of(number)
        ending = b"Connection: close\r\n" if self.last else b""
        head = b"POST %s HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n%s\r\n"
        self._transport.write(head % (path_of(number), len(body), ending) + body)

    def take(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).lower().split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 200"):
            raise Broken(lines[0].decode())
        (size,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(self._buffer) < end + 4 + size:
            return False
        check(self._number, bytes(self._buffer[end + 4 : end + 4 + size]))
        del self._buffer[: end + 4 + size]
        return True


class LastHttp1(Http1):
    """One request, after which the server closes."""

    kind = "short"
    last = True


class Tls(Http1):
    """HTTP/1.1 in TLS, which the gateway does not look into."""

    kind = "tls"


class WebSocket(Exchange):
    """Messages, which the backend repeats."""

    kind = "websocket"
    _is_open = False

    async def start(self) -> None:
        self._expect(0)
        self._transport.write(
            b"GET /0 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
        )
        await self._answered()

    def send(self, number: int) -> None:
        self._message = body_of(number) or b"%d" % number
        self._transport.write(self._frame(0x80, bytes(4)))

    def _frame(self, masked: int, mask: bytes) -> bytes:
        length = len(self._message)
        head = bytes([masked | length]) if length < 126 else bytes([masked | 126]) + length.to_bytes(2, "big")
        return b"\x82" + head + mask + self._message

    def take(self) -> bool:
        if not self._is_open:
            if b"\r\n\r\n" not in self._buffer:
                return False
            if not self._buffer.startswith(b"HTTP/1.1 101"):
                raise Broken(bytes(self._buffer[:30]).decode())
            self._buffer.clear()
            self._is_open = True
            return True
        wanted = self._frame(0, b"")
        if len(self._buffer) < len(wanted):
            return False
        if self._buffer != wanted:
            raise Broken("another message")
        self._buffer.clear()
        return True


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK, without the table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Http2(Exchange):
    """h2 with prior knowledge."""

    kind = "h2"
    _stream = -1

    def begin(self) -> None:
        self._may_send = 65535
        settings = (4).to_bytes(2, "big") + WINDOW.to_bytes(4, "big")
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, settings)
            + frame(_WINDOW_UPDATE, 0, 0, WINDOW.to_bytes(4, "big"))
        )

    def send(self, number: int) -> None:
        self._stream += 2
        self._answer = bytearray()
        body = body_of(number)
        if len(body) > self._may_send:
            raise Broken("the peer opens no window")
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path_of(number))]
        fields += [(b":authority", b"shop"), (b"content-length", b"%d" % len(body))]
        headers = b"".join(literal(*each) for each in fields)
        sent = frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), self._stream, headers)
        for at in range(0, len(body), 16384):
            last = _END_STREAM if at + 16384 >= len(body) else 0
            sent += frame(_DATA, last, self._stream, body[at : at + 16384])
        self._may_send -= len(body)
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        # Frames of the connection come without a request, too.
        if self._wanted and not self._wanted.done():
            super().data_received(data)
            return
        self._buffer += data
        try:
            self.take()
        except Broken as error:
            self._fail(str(error))

    def take(self) -> bool:
        whole = False
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + size:
                break
            kind, flags = self._buffer[3], self._buffer[4]
            payload = bytes(self._buffer[9 : 9 + size])
            stream = int.from_bytes(self._buffer[5:9], "big")
            del self._buffer[: 9 + size]
            whole = self._take_frame(kind, flags, stream, payload) or whole
        return whole

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Whether the answer is whole with it."""
        if kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._may_send += int.from_bytes(payload, "big")
        elif kind == _HEADERS and payload[:1] != b"\x88":
            raise Broken(f"no 200 but {payload[:8].hex()}")
        elif kind == _DATA:
            self._answer += payload
        elif kind not in (_SETTINGS, _PING, _WINDOW_UPDATE, _HEADERS):
            raise Broken("goaway" if kind == _GOAWAY else f"frame of type {kind}")
        if kind not in (_DATA, _HEADERS) or not flags & _END_STREAM:
            return False
        check(self._number, bytes(self._answer))
        return True


KINDS: tuple[type[Exchange], ...] = (Http1, Http2, WebSocket, Tls)


class Load:
    """All connections to one address."""

    def __init__(self, address: str, interval: float) -> None:
        self._address, self._interval = address, interval
        self.tally = Tally()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.waiting = 0
        self.ready = asyncio.Event()
        self._once_tasks: set[asyncio.Task[None]] = set()
        self._is_ending = False
        self._beat = time.monotonic()
        self._pauses: list[tuple[float, float]] = []

    async def _open(self, kind: type[Exchange]) -> Exchange:
        tls = kind is Tls
        loop = asyncio.get_running_loop()
        where = self._address, TLS if tls else HTTP
        async with asyncio.timeout(PATIENCE):
            _, made = await loop.create_connection(kind, *where, ssl=self._context if tls else None)
            await made.start()
        return made

    async def keep(self, kind: type[Exchange]) -> None:
        """One connection that is opened again when it breaks."""
        first, number = True, random.randrange(16)
        while not self._is_ending:
            opened, made, phase = time.monotonic(), None, self.tally.phase
            try:
                made = await self._open(kind)
                while not self._is_ending:
                    number += 1
                    phase = self.tally.phase
                    await self._timed(made.ask(number))
                    if first:
                        first = False
                        self._one_is_ready()
                    await asyncio.sleep(self._interval * random.uniform(0.5, 1.5))
            except (Broken, OSError, TimeoutError) as error:
                self.tally.breaks(kind.kind, phase, opened, f"{type(error).__name__} {error}")
                await asyncio.sleep(0.1)
            else:
                if made.ended:
                    self.tally.breaks(kind.kind, phase, opened, f"idle: {made.ended}")
            finally:
                if made:
                    made.close()

    async def short(self, rate: float) -> None:
        """Connections with one request each."""
        while rate and not self._is_ending:
            task = asyncio.create_task(self._once())
            self._once_tasks.add(task)
            task.add_done_callback(self._once_tasks.discard)
            await asyncio.sleep(random.uniform(0.5, 1.5) / rate)

    async def _once(self) -> None:
        opened, phase = time.monotonic(), self.tally.phase
        try:
            made = await self._timed(self._ask_once())
            async with asyncio.timeout(PATIENCE):
                await made.gone.wait()
            self.tally.phases[phase].short += 1
        except (Broken, OSError, TimeoutError) as error:
            self.tally.breaks("short", phase, opened, f"{type(error).__name__} {error}")

    async def _ask_once(self) -> Exchange:
        made = await self._open(LastHttp1)
        await made.ask(random.randrange(10**6))
        return made

    async def _timed(self, asking: Coroutine[None, None, Result]) -> Result:
        begun, phase = time.monotonic(), self.tally.now()
        result = await asking
        self._note(phase, begun, time.monotonic())
        return result

    def _note(self, phase: Phase, begun: float, ended: float) -> None:
        """A slow request is one for which others than this process took the time."""
        phase.times.append(ended - begun)
        if ended - begun <= SLOW:
            return
        # The beat that is late by now shows a pause only when it is over.
        pauses = [*self._pauses, (self._beat + BEAT, ended)]
        paused = sum(max(0.0, min(ended, last) - max(begun, first)) for first, last in pauses)
        if ended - begun - paused > SLOW:
            phase.slow += 1
        else:
            phase.held += 1

    async def end(self, kept: Sequence[asyncio.Task[None]]) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._is_ending = True
        await asyncio.gather(*kept, *self._once_tasks)

    def _one_is_ready(self) -> None:
        self.waiting -= 1
        if self.waiting <= 0:
            self.ready.set()

    async def watch(self) -> None:
        """Note when this process did not run."""
        while True:
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - self._beat > PAUSE + BEAT:
                self._pauses.append((self._beat + BEAT, now))
            self._beat = now


async def main(address: str, connections: int, interval: float, short: float) -> None:
    """Until the input ends."""
    load = Load(address, interval)
    load.waiting = connections
    watching = asyncio.create_task(load.watch())
    kept = []
    for index in range(connections):
        kept.append(asyncio.create_task(load.keep(KINDS[index % len(KINDS)])))
        await asyncio.sleep(0.002)
    await load.ready.wait()
    kept.append(asyncio.create_task(load.short(short)))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        load.tally.phase = line.strip()
    await load.end(kept)
    watching.cancel()
    print(load.tally.text(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
