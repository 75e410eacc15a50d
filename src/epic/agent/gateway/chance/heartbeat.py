# SPDX-License-Identifier: Apache-2.0
"""Asking the nodes of siblings whether they live: nothing is passed on to one that does not answer.

A probe goes the way of what is passed on: the same addresses, port, keys and programs. So the nodes that
answer are those that would take it. It is the programs that answer: an agent that is down is not missed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from itertools import islice

from epic.agent.gateway.chance.liveness import TICK_SECONDS, Liveness
from epic.agent.gateway.chance.second_chance import SecondChance
from epic.agent.gateway.chance.siblings import Siblings
from epic.bpf.dataplane import Address
from epic.bpf.packets.probe import Probe, decode, encode
from epic.bpf.packets.wire import WireError
from epic.model.values.naming import GUE_PORT

log = logging.getLogger(__name__)

# A node that is restarted, or gone, is not in the list any more by then.
_PROBLEM_SECONDS = 30.0

Send = Callable[[bytes, Address, Address], None]
"""Sends a datagram from one of our addresses to another node's."""


class Heartbeat:
    """Watches nodes, each once, however many gateways it shares.

    `changed` is called when one is lost or back.
    """

    def __init__(
        self, node: str, second_chance: SecondChance, send: Send, changed: Callable[[], None]
    ) -> None:
        self._node = node
        self._second_chance = second_chance
        self._send = send
        self._changed = changed
        self._liveness = Liveness(second_chance.lost)
        self._known: dict[str, Siblings] = {}
        self._shared: dict[Address, dict[str, Siblings]] = {}
        self._turns: dict[Address, int] = {}
        self._seen: Mapping[str, str] | None = None
        self._silent_since: dict[Address, float] = {}

    @property
    def nodes(self) -> dict[Address, bool]:
        """The other nodes of siblings, and whether each lives."""
        return {address: address not in self._liveness.lost for address in self._shared}

    @property
    def problems(self) -> list[str]:
        """Nodes that have been silent for a while, a line each."""
        now = time.monotonic()
        return [
            f"{address} does not answer on UDP port {GUE_PORT}: nothing is passed on to it (second chance)"
            for address, since in sorted(self._silent_since.items(), key=lambda item: str(item[0]))
            if now - since > _PROBLEM_SECONDS and address in self._shared
        ]

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Ask those whose turn it is."""
        if self._second_chance.applied is not self._seen:
            self._look_at_siblings()
        for address in self._liveness.tick():
            self._ask(address)
        self._conclude()

    def hear(self, payload: bytes, source: Address) -> None:
        """A probe came back from there."""
        try:
            probe = decode(payload)
        except WireError as error:
            log.debug("%s", error)
            return
        self._liveness.hear(source, probe.nonce)
        self._conclude()

    def _look_at_siblings(self) -> None:
        """Take in the lists that are others than before."""
        self._seen = self._second_chance.applied
        before, self._known = self._known, {s.gateway: s for s in self._second_chance.known}
        for gateway in {**before, **self._known}:
            old, new = before.get(gateway), self._known.get(gateway)
            if old is not new:
                self._replace(gateway, old, new)
        self._turns = {address: self._turns.get(address, 0) for address in self._shared}
        self._liveness.watch(self._shared.keys())

    def _replace(self, gateway: str, old: Siblings | None, new: Siblings | None) -> None:
        if old is not None:
            for other in old.others(self._node):
                shared = self._shared[other.address]
                del shared[gateway]
                if not shared:
                    del self._shared[other.address]
        if new is not None:
            for other in new.others(self._node):
                self._shared.setdefault(other.address, {})[gateway] = new

    def _ask(self, address: Address) -> None:
        """By the gateway that was answered for last; without an answer by another one at each time."""
        if self._liveness.waits(address):
            self._turns[address] += 1
        choices = self._shared[address]
        siblings = next(islice(choices.values(), self._turns[address] % len(choices), None))
        own, key = siblings.own(self._node), siblings.keys[siblings.active]
        other = next(sibling for sibling in siblings.siblings if sibling.address == address)
        nonce = secrets.randbits(64)
        self._liveness.ask(address, nonce)
        if own is not None and key is not None:
            probe = Probe(own.index, other.index, siblings.publics[0], nonce)
            self._send(encode(probe, key, own.address, address), own.address, address)

    def _conclude(self) -> None:
        before, now = self._second_chance.lost, self._liveness.lost
        if now != self._silent_since.keys():
            found = time.monotonic()
            self._silent_since = {address: self._silent_since.get(address, found) for address in now}
        if before != now:
            for address in sorted(map(str, now - before)):
                log.warning("the node at %s is silent: nothing is passed on to it", address)
            for address in sorted(map(str, before - now)):
                log.info("the node at %s is not silent any more", address)
            self._second_chance.lost = now
            self._changed()
