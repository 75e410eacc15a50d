# SPDX-License-Identifier: Apache-2.0
"""Hellos from a workload node: they open and hold the way through NAT, and show that a tunnel lives."""

from __future__ import annotations

import asyncio
import collections
import heapq
import logging
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from epic.agent.settings import WorkloadUnderlay
from epic.agent.tunnel.events import Events
from epic.agent.tunnel.health import HELLO_SECONDS, Health
from epic.agent.tunnel.packets import HELLO, HELLO_ACK, verified
from epic.agent.tunnel.sockets import control_socket, family_of
from epic.agent.workload.plan import WorkloadTunnel
from epic.bpf.dataplane import Address
from epic.bpf.packets import wire

log = logging.getLogger(__name__)

_BYTES = 2048
# So many hellos are sent, or answers taken, before others get a turn.
_TURN = 64


class HelloSender:
    """Says hello in every lane of every tunnel: at its start, at each change and every few seconds.

    `next_number` gives each hello its number, from the time of day in nanoseconds. `changed` is called when
    another tunnel turns out to be direct, or to be so no more.
    """

    def __init__(
        self, next_number: Callable[[int], int], underlay: WorkloadUnderlay, changed: Callable[[], None]
    ) -> None:
        self._next_number = next_number
        self._underlay = underlay
        self._changed = changed
        self._flags = wire.Flags(
            wire.Flags.SPREAD * underlay.spread | wire.Flags.CHECKSUM * underlay.checksum
        )
        self._tunnels: dict[int, WorkloadTunnel] = {}
        self._places: dict[int, Address | None] = {}
        self._health: dict[int, Health] = {}
        self._due: list[tuple[float, int]] = []
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        self._wake = asyncio.Event()
        self.events: Events = collections.Counter()

    @property
    def health(self) -> Mapping[int, Health]:
        """What is known of each tunnel."""
        return self._health

    @property
    def direct(self) -> frozenset[int]:
        """Tunnels without NAT on their way."""
        return frozenset(id_ for id_, health in self._health.items() if health.direct)

    def open(self) -> None:
        """Take the ports of all lanes; answers are heard in the running loop."""
        own = self._underlay.address
        for family in (socket.AF_INET, socket.AF_INET6):
            address = own if own is not None and family_of(own) == family else None
            for lane in range(self._underlay.lanes):
                channel = control_socket(family, address, lane)
                if channel is not None:
                    self._sockets[family, lane] = channel
                    asyncio.get_running_loop().add_reader(channel, self._readable, channel)

    def close(self) -> None:
        """Give the ports back."""
        for channel in self._sockets.values():
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()
        self._sockets.clear()

    def set_tunnels(
        self, tunnels: Mapping[int, WorkloadTunnel], places: Mapping[int, Address | None]
    ) -> None:
        """Say hello in these from now on, at once in those that are new, changed or elsewhere.

        `places` are our addresses in them.
        """
        now = time.monotonic()
        health: dict[int, Health] = {}
        before, self._health = self._health, health
        for id_, tunnel in tunnels.items():
            known, last = before.get(id_), self._tunnels.get(id_)
            if known is None or last is None or last.epic_address != tunnel.epic_address:
                health[id_] = Health(since=now)
                self._schedule(id_, now)
                continue
            health[id_] = known
            if last != tunnel or self._places.get(id_) != places.get(id_):
                self._schedule(id_, now)
        for event in [event for event in self.events if event[0] not in tunnels]:
            del self.events[event]
        self._tunnels, self._places = dict(tunnels), dict(places)
        self._wake.set()

    def receive(self, data: bytes) -> None:
        """Take in an answer."""
        found = verified(data, self._tunnels)
        if found is None or found[0].kind is not HELLO_ACK:
            return
        ack = found[0]
        health, now = self._health[ack.tunnel], time.monotonic()
        if health.generation != ack.generation:
            health.meet(ack.generation)
            self._schedule(ack.tunnel, now)
            self._wake.set()
        was_alive, was_direct, due = health.alive, health.direct, health.next_hello
        round_trip = max(0.0, (time.monotonic_ns() - ack.echo_ns) / 1e9)
        health.answered(ack.counter, now, round_trip, direct=wire.Flags.DIRECT in ack.flags)
        if health.alive and not was_alive:
            log.info("tunnel %d to %s is up", ack.tunnel, self._tunnels[ack.tunnel].epic_address)
            self.events[ack.tunnel, "up"] += 1
        if health.next_hello != due:
            self._schedule(ack.tunnel, health.next_hello)
        if health.direct != was_direct:
            self._changed()

    async def run(self) -> None:
        """Say hello until cancelled."""
        while True:
            self._wake.clear()
            for _ in range(_TURN):
                if not self._due or self._due[0][0] > time.monotonic():
                    break
                when, id_ = heapq.heappop(self._due)
                # Of the times that were set for a tunnel only the last one counts.
                if id_ in self._health and self._health[id_].next_hello == when:
                    self._greet(id_)
            due = self._due[0][0] if self._due else time.monotonic() + HELLO_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._wake.wait()

    def _schedule(self, id_: int, when: float) -> None:
        self._health[id_].next_hello = when
        heapq.heappush(self._due, (when, id_))

    def _greet(self, id_: int) -> None:
        tunnel, health, now = self._tunnels[id_], self._health[id_], time.monotonic()
        if health.is_silent(now):
            log.warning("tunnel %d to %s is down: no answer to hellos", id_, tunnel.epic_address)
            self.events[id_, "down"] += 1
            health.alive = False
        for lane in range(self._underlay.lanes):
            counter = self._next_number(time.time_ns())
            self._send(tunnel, lane, counter)
            health.sent(counter, now)
        self._schedule(id_, health.pause(now, random.uniform(-1, 1)))  # noqa: S311 - spreads packets

    def _send(self, tunnel: WorkloadTunnel, lane: int, counter: int) -> None:
        hello = wire.Control(
            HELLO,
            tunnel.id,
            counter,
            time.monotonic_ns(),
            lane=lane,
            lanes=self._underlay.lanes,
            flags=self._flags,
            generation=self._health[tunnel.id].generation,
        )
        channel = self._sockets.get((family_of(tunnel.epic_address), lane))
        if channel is None:
            return
        try:
            target = (str(tunnel.epic_address), tunnel.epic_port)
            channel.sendto(wire.encode(hello, tunnel.signing_key), target)
        except OSError as error:
            log.debug("a hello was not taken: %s", error)

    def _readable(self, channel: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data = channel.recv(_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # The other end, or the way there, is not up.
                log.debug("a hello was not taken: %s", error)
                return
            self.receive(data)
