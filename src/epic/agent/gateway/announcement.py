"""Flag routes: a gateway's address is announced from this node while its route stands."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from epic.agent.gateway.envoy.readiness import Envoy, plan_announcements
from epic.agent.netlink.objects import Netlink
from epic.agent.runtime.worker import Worker

log = logging.getLogger(__name__)


class Announcer:
    """Has a thread of its own: a withdrawal waits for nothing."""

    def __init__(self) -> None:
        self._worker = Worker("flags")
        self._netlink: Netlink | None = None
        self._lock = asyncio.Lock()
        self._standing: frozenset[IPv4Address] = frozenset()

    @property
    def standing(self) -> frozenset[IPv4Address]:
        """Addresses that are announced."""
        return self._standing

    async def open(self) -> None:
        """Find the routes that stand."""
        self._netlink = await self._worker.run(Netlink)
        await self.observe()

    async def observe(self) -> None:
        """StatusSample at the kernel's routes again; somebody else may have removed one."""
        async with self._lock:
            self._standing = await self._worker.run(self._opened().flag_routes)

    async def sync(
        self,
        instances: Mapping[str, IPv4Address],
        envoys: Mapping[str, Envoy],
        programmed: Collection[str],
    ) -> bool:
        """Make the routes that may stand now and remove the others; True when something changed."""
        async with self._lock:
            add, remove = plan_announcements(instances, envoys, programmed, self._standing, time.monotonic())
            if not add and not remove:
                return False
            await self._worker.run(self._change, add, remove)
        for verb, addresses in (("withdrew", remove), ("announced", add)):
            for address in sorted(addresses):
                log.info("%s %s", verb, address)
        return True

    async def clear(self) -> None:
        """Remove all."""
        async with self._lock:
            await self._worker.run(self._change, set(), set(self._standing))

    def close(self) -> None:
        """Close the socket; the routes stay."""
        self._worker.close()
        self._opened().close()

    def _change(self, add: Collection[IPv4Address], remove: Collection[IPv4Address]) -> None:
        netlink = self._opened()
        for address in remove:
            netlink.remove_flag_route(address)
            self._standing -= {address}
        for address in add:
            netlink.add_flag_route(address)
            self._standing |= {address}

    def _opened(self) -> Netlink:
        if self._netlink is None:
            raise RuntimeError("flag routes are used before open()")
        return self._netlink
