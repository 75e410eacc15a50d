"""Hellos from a workload node: they open and hold the way through NAT, and show that a tunnel lives."""

from __future__ import annotations

import asyncio
import collections
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from epic.agent.control_packets import HELLO_ACK, hello, verified
from epic.agent.events import Events
from epic.agent.tunnels import WorkloadTunnel

log = logging.getLogger(__name__)

HELLO_SECONDS = 5.0
# Until the first answer: a new tunnel must not wait for the next regular hello when one was lost.
_FIRST_SECONDS = 0.5
_DEAD_SECONDS = 16.0
_JITTER = 0.1


# Without an answer for so long a hello counts as lost.
_LATE_SECONDS = 2.0
_REMEMBERED = 60


@dataclass(frozen=True)
class Hello:
    """A hello, when it was sent, and what its answer tells."""

    counter: int
    at: float
    round_trip: float | None = None


@dataclass(frozen=True)
class Health:
    """What hellos and their answers tell of a tunnel; times are monotonic seconds."""

    last: tuple[Hello, ...] = ()
    round_trip: float | None = None
    last_answer: float | None = None
    next_hello: float = 0.0
    since: float = 0.0
    alive: bool = False

    @property
    def round_trips(self) -> tuple[float, ...]:
        """Those of the last hellos that were answered."""
        return tuple(h.round_trip for h in self.last if h.round_trip is not None)

    def loss(self, now: float) -> float | None:
        """The part of the last hellos that was lost; None while there are none to tell by."""
        told = [h for h in self.last if h.round_trip is not None or now - h.at > _LATE_SECONDS]
        return sum(h.round_trip is None for h in told) / len(told) if told else None


def sent(health: Health, counter: int, now: float, spread: float) -> Health:
    """After a hello with this counter; `spread` is a random number from -1 to 1."""
    is_new = now - health.since < HELLO_SECONDS
    pause = _FIRST_SECONDS if is_new and not health.alive else HELLO_SECONDS
    last = (*health.last, Hello(counter, now))[-_REMEMBERED:]
    return replace(health, last=last, next_hello=now + pause * (1 + _JITTER * spread))


def answered(health: Health, counter: int, now: float, round_trip: float) -> Health:
    """After the answer to the hello with this counter."""
    return replace(
        health,
        last=tuple(replace(h, round_trip=round_trip) if h.counter == counter else h for h in health.last),
        round_trip=round_trip,
        last_answer=now,
        alive=True,
        next_hello=max(health.next_hello, now + HELLO_SECONDS * (1 - _JITTER)),
    )


def is_silent(health: Health, now: float) -> bool:
    """Whether a tunnel that lived answers no more."""
    return health.alive and health.last_answer is not None and now - health.last_answer > _DEAD_SECONDS


class Counter:
    """A number that rises for ever: with the clock, and never back with it.

    What may be used is written down in advance, so that a restart goes on above it.
    """

    RESERVE_NS = 600 * 10**9

    def __init__(self, reserved: int, reserve: Callable[[int], None]) -> None:
        self._last = reserved
        self._reserved = reserved
        self._reserve = reserve

    def next(self, now_ns: int) -> int:
        """The next number."""
        self._last = max(self._last + 1, now_ns)
        if self._last > self._reserved:
            self._reserved = self._last + self.RESERVE_NS
            self._reserve(self._reserved)
        return self._last


class HelloSender(asyncio.DatagramProtocol):
    """Says hello in every tunnel: at its start, at each change and every few seconds."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._tunnels: dict[int, WorkloadTunnel] = {}
        self._health: dict[int, Health] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._wake = asyncio.Event()
        self.events: Events = collections.Counter()

    @property
    def health(self) -> Mapping[int, Health]:
        """What is known of each tunnel."""
        return self._health

    def set_tunnels(self, tunnels: Mapping[int, WorkloadTunnel]) -> None:
        """Say hello in these from now on, at once in those that are new or changed."""
        now = time.monotonic()
        self._health = {
            id_: _after_change(self._health.get(id_), self._tunnels.get(id_), tunnel, now)
            for id_, tunnel in tunnels.items()
        }
        self._tunnels = dict(tunnels)
        self._wake.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def error_received(self, exc: Exception) -> None:
        """See asyncio: the other end, or the way there, is not up."""
        log.debug("a hello was not taken: %s", exc)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 - asyncio's
        """See asyncio: take in an answer."""
        found = verified(data, self._tunnels)
        if found is None or found[0].kind is not HELLO_ACK:
            return
        ack = found[0]
        now = time.monotonic()
        health = self._health[ack.tunnel]
        if not health.alive:
            log.info("tunnel %d to %s is up", ack.tunnel, self._tunnels[ack.tunnel].epic_address)
            self.events[ack.tunnel, "up"] += 1
        round_trip = max(0.0, (time.monotonic_ns() - ack.echo_ns) / 1e9)
        self._health[ack.tunnel] = answered(health, ack.counter, now, round_trip)

    async def run(self) -> None:
        """Say hello until cancelled."""
        while True:
            now = time.monotonic()
            for id_, health in list(self._health.items()):
                if is_silent(health, now):
                    address = self._tunnels[id_].epic_address
                    log.warning("tunnel %d to %s is down: no answer to hellos", id_, address)
                    self.events[id_, "down"] += 1
                    self._health[id_] = replace(health, alive=False)
                if now >= health.next_hello:
                    self._send(self._tunnels[id_], now)
            due = min((h.next_hello for h in self._health.values()), default=now + HELLO_SECONDS)
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _send(self, tunnel: WorkloadTunnel, now: float) -> None:
        counter = self._counter.next(time.time_ns())
        packet = hello(tunnel.id, tunnel.signing_key, counter, time.monotonic_ns())
        if self._transport is not None:
            self._transport.sendto(packet, (str(tunnel.epic_address), tunnel.epic_port))
        spread = random.uniform(-1, 1)  # noqa: S311 - spreads packets
        self._health[tunnel.id] = sent(self._health[tunnel.id], counter, now, spread)


def _after_change(
    health: Health | None, before: WorkloadTunnel | None, tunnel: WorkloadTunnel, now: float
) -> Health:
    """What is known of a tunnel once it is `tunnel`; a change makes the next hello go out at once."""
    if health is None or before is None or before.epic_address != tunnel.epic_address:
        return Health(since=now)
    return health if before == tunnel else replace(health, next_hello=now)
