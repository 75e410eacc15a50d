# SPDX-License-Identifier: Apache-2.0
"""Flag routes: a gateway's address is announced from this node while its route stands."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeVar

from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Instance
from epic.agent.gateway.envoy.readiness import Envoy, Preconditions, plan_announcements
from epic.agent.netlink.objects import Netlink
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.worker import Worker
from epic.model.values.addresses import Address, order

log = logging.getLogger(__name__)
T = TypeVar("T")

# So long a control plane may take to say anything, and everything.
_SILENT_SECONDS = 5.0
_UNDECIDED_SECONDS = 15.0
_FIRST_HELLO_SECONDS = 6.0
"""Who lives has said a regular hello in this time."""
_HOLD_SECONDS = 10.0
# The kernel answers at once, unless others keep it from that.
_SLOW_SECONDS = 3.0


class Announcer:
    """Has a thread of its own: a withdrawal waits for nothing."""

    def __init__(self) -> None:
        self._worker = Worker("flags")
        self._netlink: Netlink | None = None
        self._lock = asyncio.Lock()
        self._standing: frozenset[Address] = frozenset()
        self._lost: dict[Address, float] = {}
        self._suspected = 0.0
        self._asked: float | None = None
        self._troubles = LogOnce(log)

    @property
    def standing(self) -> frozenset[Address]:
        """Addresses that are announced."""
        return self._standing

    @property
    def problems(self) -> tuple[str, ...]:
        """Addresses that cannot be announced, a line each, and that the kernel does not answer."""
        if self._asked is None or (waited := time.monotonic() - self._asked) < _SLOW_SECONDS:
            return self._troubles.problems
        late = f"the kernel has not answered for {waited:.0f} s: nothing is announced or withdrawn meanwhile"
        return (*self._troubles.problems, late)

    @property
    def port(self) -> int:
        """The sender that messages about our own changes of routes name."""
        return self._opened().port

    async def open(self) -> None:
        """Find the routes that stand."""
        self._netlink = await self._worker.run(Netlink)
        await self.observe()

    def suspect(self) -> None:
        """Somebody has removed a flag route just now."""
        self._suspected = time.monotonic()

    def lost_at(self, address: Address) -> float:
        """When somebody else removed this flag route; 0 when nobody did.

        It may have been the unit of its Envoy, which is to stop: who makes it again asks the Envoy first.
        """
        return self._lost.get(address, 0.0)

    async def observe(self) -> None:
        """Look at the kernel's routes again; somebody else may have removed one."""
        async with self._lock:
            standing = await self._ask(self._opened().flag_routes)
            since, self._suspected = self._suspected or time.monotonic(), 0.0
            self._lost = {a: t for a, t in self._lost.items() if a not in standing}
            self._lost |= dict.fromkeys(self._standing - standing, since)
            self._standing = standing

    async def sync(
        self,
        instances: Mapping[str, tuple[Address, ...]],
        envoys: Mapping[str, Envoy],
        preconditions: Preconditions,
    ) -> bool:
        """Make the routes that may stand now and remove the others; True when something changed."""
        async with self._lock:
            add, remove = plan_announcements(
                instances, envoys, preconditions, self._standing, time.monotonic()
            )
            if not add and not remove:
                return False
            await self._ask(self._change, add, remove)
        for address in sorted(remove - self._standing, key=order):
            log.info("withdrew %s", address)
        for address in sorted(add, key=order):
            if address in self._standing:
                log.info("announced %s", address)
            self._troubles.report(
                str(address),
                ""
                if address in self._standing
                else f"{address} cannot be announced: its route cannot be made; is there another one to it?",
            )
        return True

    async def clear(self) -> None:
        """Remove all."""
        async with self._lock:
            await self._ask(self._change, set(), set(self._standing))

    def close(self) -> None:
        """Close the socket; the routes stay."""
        self._worker.close()
        self._opened().close()

    async def _ask(self, call: Callable[..., T], *arguments: object) -> T:
        """Have the thread ask the kernel. What takes long is said, for it can be seen nowhere else."""
        begun = self._asked = time.monotonic()
        try:
            return await self._worker.run(call, *arguments)
        finally:
            self._asked = None
            if (waited := time.monotonic() - begun) >= _SLOW_SECONDS:
                log.warning("the kernel let those wait who ask for flag routes: %.1f s", waited)

    def _change(self, add: Collection[Address], remove: Collection[Address]) -> None:
        netlink = self._opened()
        for address in remove:
            try:
                netlink.remove_flag_route(address)
            except OSError as error:
                # It counts as standing, so it is tried again at the next tick.
                self._troubles.report(f"withdraw {address}", f"{address} cannot be withdrawn: {error}")
            else:
                self._troubles.report(f"withdraw {address}", "")
                self._standing -= {address}
        for address in add:
            try:
                netlink.add_flag_route(address)
            except OSError as error:
                log.debug("%s cannot be announced: %s", address, error)
        if add:
            # What stands is what the kernel says: another's route may be in the way of ours.
            self._standing = netlink.flag_routes()
            self._lost = {a: t for a, t in self._lost.items() if a not in self._standing}

    def _opened(self) -> Netlink:
        if self._netlink is None:
            raise RuntimeError("flag routes are used before open()")
        return self._netlink


class Heard(Protocol):
    """Who hears from the control plane."""

    @property
    def heard(self) -> bool:
        """Whether the control plane speaks."""


class Hold:
    """Has an agent that starts on a node where nothing is announced ask the control plane first, and hear of
    the far ends of the tunnels that it had.

    It may have been away for long: what it has on disk may belong to others by now. And the programs of a
    host that started anew do not know where far ends are before these say hello: requests would wait for it.
    """

    def __init__(self, client: Heard, cache: ResourceCache, *, standing: bool) -> None:
        self._client = client
        self._cache = cache
        self._begun = time.monotonic()
        self._had = frozenset(cache.tunnels)
        self._decided: float | None = None
        self._over = standing

    def holds(self, alive: Collection[int]) -> bool:
        """Whether nothing may be announced yet; `alive` are the ids of tunnels that were heard of."""
        if not self._over:
            now = time.monotonic()
            if self._decided is None and self._is_decided(now):
                self._decided = now
            if self._decided is not None:
                unheard = (self._had & self._cache.tunnels.keys()).difference(alive)
                self._over = not unheard or now - self._decided > _FIRST_HELLO_SECONDS
        return not self._over

    def _is_decided(self, now: float) -> bool:
        waited = now - self._begun
        silent = waited > _SILENT_SECONDS and not self._client.heard
        return self._cache.node_state is not None or silent or waited > _UNDECIDED_SECONDS


class Newcomers:
    """Those that are to wait: for their tunnels, or, but not for ever, until they and their siblings know
    each other."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def held(self, instances: Mapping[str, Instance], now: float) -> set[str]:
        """Gateways that are not to be announced yet; `now` in monotonic seconds."""
        waiting = {gateway for gateway, instance in instances.items() if instance.hold}
        self._since = {gateway: self._since.get(gateway, now) for gateway in waiting}
        unconnected = {gateway for gateway, instance in instances.items() if instance.unconnected}
        return unconnected | {g for g, since in self._since.items() if now - since < _HOLD_SECONDS}
