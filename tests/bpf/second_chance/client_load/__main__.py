# SPDX-License-Identifier: Apache-2.0
"""Load on a gateway: `client_load ADDRESS CONNECTIONS INTERVAL SHORT`, with Python's own library only.

CONNECTIONS kept-alive connections, a quarter each of HTTP/1.1, h2, WebSocket and TLS through a TCP listener,
each with one request at a time, one every INTERVAL seconds; one in sixteen carries 40 kB up, one 100 kB down.
Besides, SHORT connections a second with one request each. Says "ready" when all have answered, takes the name
of the phase to come from each line of its input and repeats it; after RENEW instead each connection ends
between two requests, and is opened again. At the end of its input it prints one JSON object:
{"phases": {NAME: {"requests", "slow", "held", "short", "told", "worst": ms, "median": ms}}, "broken":
[{"kind", "phase", "at", "age", "why"}]}.

A broken connection is one that ends of itself, or on which a request is not answered rightly within PATIENCE
seconds; it is opened again. It counts in the phase in which that was seen, and one that said nothing in that
of its request. `slow` and `held` are requests over SLOW seconds, the latter because this process itself did
not get to run; `told` describes the slow ones (tally.py). Of a request that is not answered within SILENCE
seconds it says "silent PORT ..." at once, on its standard error.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import sys
import time
from collections.abc import Sequence

from exchange import PATIENCE, Broken, Exchange, Hung
from http1 import Http1, LastHttp1, Tls
from http2 import Http2
from pauses import Pauses
from tally import SLOW, Slow, Tally
from websocket import WebSocket

HTTP, TLS = 80, 8443
RENEW, RENEWED_WITHIN = "renew", 1.5
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
        self._renewals, self._renewed = 0, 0.0
        self.pauses = Pauses()

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
            renewals, patience = self._renewals, random.uniform(0, RENEWED_WITHIN)
            try:
                made = await self._open(kind)
                while not self._is_ending and self._may_stay(renewals, patience):
                    number += 1
                    phase = self.tally.phase
                    await self._ask(made, number)
                    if first:
                        first = False
                        self._one_is_ready()
                    await asyncio.sleep(self._interval * random.uniform(0.5, 1.5))
            except (Broken, OSError, TimeoutError) as error:
                self.tally.breaks(
                    kind.kind, self._phase_of(error, phase), opened, f"{type(error).__name__} {error}"
                )
                await asyncio.sleep(0.1)
            else:
                if made.ended:
                    self.tally.breaks(kind.kind, self.tally.phase, opened, f"idle: {made.ended}")
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
            made = await self._open(LastHttp1)
            await self._ask(made, random.randrange(10**6), opened)
            async with asyncio.timeout(PATIENCE):
                await made.gone.wait()
            self.tally.phases[phase].short += 1
        except (Broken, OSError, TimeoutError) as error:
            self.tally.breaks(
                "short", self._phase_of(error, phase), opened, f"{type(error).__name__} {error}"
            )

    def _phase_of(self, error: Exception, asked: str) -> str:
        return asked if isinstance(error, Hung | TimeoutError) else self.tally.phase

    async def _ask(self, made: Exchange, number: int, opened: float | None = None) -> None:
        """One request; `opened`: when its connection was begun to be opened, if that is for it alone."""
        asked, phase = time.monotonic(), self.tally.now()
        before = made.lost if opened is None else 0
        await made.ask(number)
        begun, ended = asked if opened is None else opened, time.monotonic()
        lost = made.lost - before if ended - begun > SLOW else 0
        phase.note(Slow(made.kind, begun, asked, ended, lost, made.upstream), self.pauses)

    def _may_stay(self, renewals: int, patience: float) -> bool:
        """A connection that was opened after so many renewals, and takes so long to heed another one."""
        return renewals == self._renewals or time.monotonic() < self._renewed + patience

    def renew(self) -> None:
        """Let each connection end, and open it again; not all at the same time."""
        self._renewals, self._renewed = self._renewals + 1, time.monotonic()

    async def end(self, kept: Sequence[asyncio.Task[None]]) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._is_ending = True
        await asyncio.gather(*kept, *self._once_tasks)

    def _one_is_ready(self) -> None:
        self.waiting -= 1
        if self.waiting <= 0:
            self.ready.set()


async def main(address: str, connections: int, interval: float, short: float) -> None:
    """Until the input ends."""
    load = Load(address, interval)
    load.waiting = connections
    watching = asyncio.create_task(load.pauses.watch())
    kept = []
    for index in range(connections):
        kept.append(asyncio.create_task(load.keep(KINDS[index % len(KINDS)])))
        await asyncio.sleep(0.002)
    await load.ready.wait()
    kept.append(asyncio.create_task(load.short(short)))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        said = line.strip()
        if said == RENEW:
            load.renew()
        else:
            load.tally.phase = said
        print(said, flush=True)
    await load.end(kept)
    watching.cancel()
    print(load.tally.text(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
