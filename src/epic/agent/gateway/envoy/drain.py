# SPDX-License-Identifier: Apache-2.0
"""Draining: clients are told to leave, the address is withdrawn, and connections get their time.

Also those whose packets come by other nodes from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from epic.agent.gateway.envoy import admin

log = logging.getLogger(__name__)

ANNOUNCED_SECONDS = 3.0
"""So long a draining gateway is still announced: its clients hear of it before packets go elsewhere."""
QUIET_SECONDS = 1.0
"""So long a withdrawn gateway must be without connections: routers may send it new ones until they know."""
UNORDERED_SECONDS = 15.0
"""So long an Envoy may drain that was not told to by the control plane; its unit stops within that."""
_LOOK_SECONDS = 0.25


class Order(NamedTuple):
    """How a gateway is to drain: its connections may take so many seconds to end."""

    seconds: float


class _Drain:
    """One gateway that drains. Times are those of the event loop."""

    def __init__(self, order: Order, begun: float) -> None:
        self.order = order
        self.begun = begun
        self.withdrawn = False
        self.ended = False
        self.task: asyncio.Task[None] | None = None


class Drainer:
    """Carries out orders to drain. `socket` is a gateway's admin socket, `changed` is called after steps."""

    def __init__(self, socket: Callable[[str], Path], changed: Callable[[], None]) -> None:
        self._socket = socket
        self._changed = changed
        self._drains: dict[str, _Drain] = {}
        self._restoring: dict[str, asyncio.Task[None]] = {}
        self._unordered: dict[str, float] = {}

    @property
    def draining(self) -> frozenset[str]:
        """Gateways that drain: they are not announced anew."""
        return frozenset(self._drains)

    @property
    def withdrawn(self) -> frozenset[str]:
        """Those that are announced no more."""
        return frozenset(g for g, drain in self._drains.items() if drain.withdrawn)

    @property
    def ended(self) -> frozenset[str]:
        """Those whose connections have ended, or had their time."""
        return frozenset(g for g, drain in self._drains.items() if drain.ended)

    def set_orders(self, orders: Mapping[str, Order], gateways: Iterable[str]) -> None:
        """These drain from now on; those of `gateways` that did before and do no more serve again."""
        loop = asyncio.get_running_loop()
        here = set(gateways)
        self._unordered = {g: since for g, since in self._unordered.items() if g in here}
        for gateway in self._drains.keys() - orders.keys():
            self._cancel(self._drains.pop(gateway))
            if gateway in here:
                log.info("gateway %s drains no more", gateway)
                self._restore(gateway)
        for gateway, order in orders.items():
            drain = self._drains.get(gateway)
            if drain is None:
                log.info("gateway %s drains: its connections have %g s", gateway, order.seconds)
                drain = self._drains[gateway] = _Drain(order, loop.time())
            elif drain.order == order:
                continue
            self._cancel(drain)
            drain.order = order
            drain.task = asyncio.create_task(self._run(gateway, drain), name=f"drain {gateway}")

    def hear(self, gateway: str, state: str) -> bool:
        """An Envoy says that its state is `LIVE`, `DRAINING`, ...; whether it serves as it should."""
        if state != "DRAINING":
            self._unordered.pop(gateway, None)
            return state == "LIVE"
        if gateway in self._drains:
            return True
        # Its unit is being stopped, unless this lasts: then an earlier agent had it drain.
        now = asyncio.get_running_loop().time()
        if now - self._unordered.setdefault(gateway, now) > UNORDERED_SECONDS:
            self._restore(gateway)
        return False

    def close(self) -> None:
        """End; Envoys that drain go on doing so."""
        for task in self._restoring.values():
            task.cancel()
        for drain in self._drains.values():
            self._cancel(drain)

    async def _run(self, gateway: str, drain: _Drain) -> None:
        socket, loop = self._socket(gateway), asyncio.get_running_loop()
        end = drain.begun + drain.order.seconds
        withdraw = drain.begun + min(ANNOUNCED_SECONDS, drain.order.seconds)
        connections, busy = 1, loop.time()
        while not drain.ended:
            connections = await self._count(gateway, socket, connections)
            now = loop.time()
            if connections or not drain.withdrawn:
                busy = now
            if not drain.withdrawn and now >= withdraw:
                drain.withdrawn = True
                self._changed()
            if drain.withdrawn and (now - busy >= QUIET_SECONDS or now >= end):
                log.info("gateway %s is drained; %d connections are left", gateway, connections)
                drain.ended = True
                self._changed()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _count(self, gateway: str, socket: Path, before: int) -> int:
        """Its connections, of which there were so many `before`; an Envoy that is gone has none."""
        # An Envoy that was started meanwhile must be told, too.
        try:
            await admin.fail_health(socket)
            return await admin.count_connections(socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return 0
        except admin.FAILURES as error:
            # It may be too busy to answer: with its connections.
            log.debug("the Envoy of gateway %s does not answer: %s", gateway, error)
            return before

    def _restore(self, gateway: str) -> None:
        if gateway not in self._restoring:
            task = asyncio.create_task(self._pass_health(gateway), name=f"restore {gateway}")
            self._restoring[gateway] = task
            task.add_done_callback(lambda _: self._restoring.pop(gateway, None))

    async def _pass_health(self, gateway: str) -> None:
        with suppress(*admin.FAILURES):
            await admin.pass_health(self._socket(gateway))

    def _cancel(self, drain: _Drain) -> None:
        if drain.task is not None:
            drain.task.cancel()
