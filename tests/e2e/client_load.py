# SPDX-License-Identifier: Apache-2.0
"""Load from the host `client`; runs there alone, with nothing but Python's own library.

Arguments: ADDRESS PORT HOST RATE CONNECTIONS. Sends RATE requests a second on connections of their own, and
one a second on each of CONNECTIONS kept-alive connections, until its input ends, but for five
seconds at least: what is tried may be over at once. Then prints one JSON line:
{"sent", "answered", "closed": ends of kept-alive connections that the last answer announced, "dropped": ends
that came unannounced between two requests, "stalled": seconds in which this process did not run,
"failures": [{"port", "opened", "at", "kind", "kept", "text"}]}. A failure is an answer other than 200 or
none, on the connection from `port` (0: none came to be) that was begun at `opened`, given up at `at`;
`kept`: the connection had answered before; `text` ends with what the kernel knows of the connection.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

PATIENCE = 5.0
PAUSE = 1.0
BEAT = 0.05
STALL = 0.2
LEAST_SECONDS = 5


@dataclass
class Tally:
    """What happened."""

    sent: int = 0
    answered: int = 0
    closed: int = 0
    dropped: int = 0
    stalled: float = 0.0
    failures: list[dict[str, object]] = field(default_factory=list)

    def fail(self, line: Line, kind: str, text: object) -> None:
        """Note a request without a 200."""
        ends = {"port": line.port, "opened": line.opened, "at": time.time()}
        said = f"{str(text)[:200]} {line.describe()}".strip()
        self.failures.append(ends | {"kind": kind, "kept": line.kept, "text": said})


class Patience:
    """Limits of waiting that count no time in which this process did not run: it could see no answer."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._limits: set[asyncio.Timeout] = set()
        self._expect()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raise TimeoutError when the block takes longer."""
        async with asyncio.timeout(PATIENCE) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def _expect(self) -> None:
        # A callback, not a task: after a stall it is called before the limits that are over by then.
        self._expected = self._loop.time() + BEAT
        self._loop.call_at(self._expected, self._beat)

    def _beat(self) -> None:
        stall = self._loop.time() - self._expected
        if stall > STALL:
            self._tally.stalled += stall
            for limit in self._limits:
                when = limit.when()
                if when is not None and not limit.expired():
                    limit.reschedule(when + stall)
        self._expect()


@dataclass
class Line:
    """A connection, or the attempt at one."""

    opened: float = field(default_factory=time.time)
    writer: asyncio.StreamWriter | None = None
    port: int = 0
    kept: bool = False
    connected: float = 0.0

    async def open(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        reader, self.writer = await asyncio.open_connection(target.address, target.port)
        self.connected = time.time()
        self.port = self.writer.get_extra_info("sockname")[1]
        return reader, self.writer

    def describe(self) -> str:
        """When it was established, and what of it arrived on the other side, by the kernel's `tcp_info`."""
        if self.writer is None:
            return ""
        known = self.writer.get_extra_info("socket")
        try:
            info = known.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
        except OSError as error:
            return f"connected={self.connected:.2f} {error}"
        state, (sent_ms, _, received_ms) = info[0], struct.unpack_from("3I", info, 44)
        (retransmitted,) = struct.unpack_from("I", info, 100)
        acknowledged, received, _, segments = struct.unpack_from("QQII", info, 120)
        return (
            f"connected={self.connected:.2f} state={state} acknowledged={acknowledged} received={received} "
            f"segments={segments} retransmitted={retransmitted} sent={sent_ms}ms received={received_ms}ms ago"
        )

    def close(self) -> None:
        """End it, if it came to be."""
        if self.writer is not None:
            self.writer.close()


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    address: str
    port: int
    host: str

    def request(self, keep: bool) -> bytes:
        """A whole request."""
        connection = "keep-alive" if keep else "close"
        return f"GET / HTTP/1.1\r\nHost: {self.host}\r\nConnection: {connection}\r\n\r\n".encode()


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status of a reply that is read to its end, and whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while (size := int((await reader.readuntil(b"\r\n")).strip(), 16)) >= 0:
            await reader.readexactly(size + 2)
            if size == 0:
                break
    return int(head[0].split()[1]), headers.get("connection") != "close"


async def ask_once(target: Target, tally: Tally, patience: Patience) -> None:
    """A request on a connection of its own."""
    tally.sent += 1
    line = Line()
    try:
        async with patience.limit():
            reader, writer = await line.open(target)
            writer.write(target.request(keep=False))
            status, _ = await read_reply(reader)
        if status == 200:
            tally.answered += 1
        else:
            tally.fail(line, str(status), "")
    except (OSError, EOFError, TimeoutError) as error:
        tally.fail(line, type(error).__name__, error)
    finally:
        line.close()


async def keep_asking(target: Target, tally: Tally, patience: Patience, offset: float) -> None:
    """Requests on one connection after the other, each kept for as long as the server keeps it."""
    await asyncio.sleep(offset)
    while True:
        line = Line()
        try:
            async with patience.limit():
                reader, writer = await line.open(target)
            going = True
            while going:
                if reader.at_eof():
                    tally.dropped += 1
                    break
                tally.sent += 1
                async with patience.limit():
                    writer.write(target.request(keep=True))
                    status, going = await read_reply(reader)
                if status == 200:
                    tally.answered += 1
                else:
                    tally.fail(line, str(status), "")
                line.kept = True
                if not going:
                    tally.closed += 1
                await asyncio.sleep(PAUSE)
        except (OSError, EOFError, TimeoutError) as error:
            tally.fail(line, type(error).__name__, error)
            await asyncio.sleep(0.05)
        finally:
            line.close()


async def pace(target: Target, tally: Tally, patience: Patience, rate: float) -> None:
    """Begin `rate` requests a second, whatever becomes of them."""
    under_way: set[asyncio.Task[None]] = set()
    begin, number = time.monotonic(), 0
    while True:
        number += 1
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        task = asyncio.create_task(ask_once(target, tally, patience))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


async def main() -> None:
    """Load until the input ends."""
    address, port, host, rate, connections = sys.argv[1:6]
    # Requests that wait keep theirs open.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target, tally = Target(address, int(port), host), Tally()
    patience = Patience(tally)
    works = [asyncio.create_task(pace(target, tally, patience, float(rate)))]
    count = int(connections)
    works += [
        asyncio.create_task(keep_asking(target, tally, patience, PAUSE * n / count)) for n in range(count)
    ]
    print("ready", flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(ended, asyncio.sleep(LEAST_SECONDS))
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
    print(json.dumps(asdict(tally)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
