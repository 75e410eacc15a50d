"""Brings the node to what the control plane asks for, again after each change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from pyroute2 import NetlinkError

from epic.ads.snapshot import Snapshot
from epic.agent import plan
from epic.agent.desired import EMPTY, Desired
from epic.agent.envoys import LET_GO_SECONDS, lets_go
from epic.agent.flags import FlagRoutes
from epic.agent.fleet import Fleet, node_of
from epic.agent.held import Held
from epic.agent.kernel import GatewayKernel
from epic.agent.relay import LocalServer
from epic.agent.worker import Worker
from epic.errors import EpicError

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
_RETRY_SECONDS = 1.0
_RESYNC_SECONDS = 5.0


class Reconciler:
    """Owns the order: withdraw, add to the kernel, tell Envoys, take from the kernel, announce."""

    def __init__(
        self,
        kernel: GatewayKernel,
        worker: Worker,
        fleet: Fleet,
        server: LocalServer,
        routes: FlagRoutes,
    ) -> None:
        self._kernel = kernel
        self._worker = worker
        self._fleet = fleet
        self._server = server
        self._routes = routes
        self._wake = asyncio.Event()
        self._trusted = False
        self._waiting = False
        self._done: tuple[int, int] | None = None
        self._plumbed: set[str] = set()
        self._parts: Mapping[str, Snapshot] = {}
        self.desired: Desired = EMPTY

    def take(self, held: Held) -> None:
        """Work towards this from now on.

        Before the first call nothing is removed: an agent that lost its state must not take down what works.
        """
        self.desired = held.desired()
        self._done = None
        self._parts = held.envoy_snapshots()
        for gateway in self._fleet.envoys.keys() - self.desired.instances.keys():
            self._server.forget(node_of(gateway))
        standing = self._routes.standing
        announced = (g for g, i in self.desired.instances.items() if i.public in standing)
        self._fleet.keep(self.desired.instances, announced)
        self._trusted = True
        self.wake()

    def wake(self) -> None:
        """Something changed: look at everything."""
        self._wake.set()

    async def run(self, done: Callable[[], None]) -> None:
        """Reconcile until cancelled; `done` is called after each round."""
        while True:
            try:
                async with asyncio.timeout(_RESYNC_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                await self._routes.observe()
            # What the control plane sends at once arrives within this time.
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                await self.round()
            except (EpicError, OSError, NetlinkError) as error:
                log.error("the node cannot be looked at: %s; trying again", error)
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.wake)
            done()

    def wake_if_waiting(self) -> None:
        """An Envoy has answered: endpoints that it let go of may now be removed."""
        if self._waiting:
            self.wake()

    async def announce(self) -> bool:
        """Make the flag routes right; True when one changed."""
        if not self._trusted:
            return False
        addresses = {g: i.public for g, i in self.desired.instances.items()}
        return await self._routes.sync(addresses, self._fleet.envoys, self._plumbed)

    async def round(self) -> None:
        """Look at everything once and make it right."""
        wanted, parts = self.desired, self._parts
        await self.announce()
        observed = await self._worker.run(self._kernel.observe, wanted)
        # With many endpoints the comparison takes a while, and mostly all is as it was left.
        calm = observed.elements == wanted.elements
        if calm and self._done == (id(wanted), self._kernel.revision):
            return
        self._done = None
        failed = await self._worker.run(self._kernel.apply, plan.additions(wanted, observed))
        if self._trusted and not failed:
            await self._worker.run(self._kernel.settle)
        broken = plan.unplumbed(wanted, observed, failed)
        self._publish(wanted, parts, {g for a in failed if (g := plan.gateway_of(a)) is not None})
        if self._trusted:
            now = time.monotonic()
            settled = {
                g for g, e in self._fleet.envoys.items() if lets_go(e, now, self._fleet.published_at(g))
            }
            failed += await self._worker.run(self._kernel.apply, plan.removals(wanted, observed, settled))
            self._waiting = bool(plan.waiting(wanted, observed) - settled)
            if self._waiting:
                asyncio.get_running_loop().call_later(LET_GO_SECONDS, self.wake)
        self._plumbed = set(wanted.instances) - broken
        await self.announce()
        if not failed and not self._waiting:
            self._done = id(wanted), self._kernel.revision
        if failed:
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.wake)

    def _publish(self, wanted: Desired, parts: Mapping[str, Snapshot], broken: set[str]) -> None:
        """Tell the Envoys, except those whose new endpoints have no tunnels yet."""
        for gateway, instance in wanted.instances.items():
            # Without a revision there is no accepted configuration: what the Envoy has stays.
            part = parts.get(gateway, {} if instance.revision else None)
            if part is None or gateway in broken or gateway not in self._fleet.envoys:
                continue
            if self._fleet.publish(gateway, part, instance.revision):
                self._server.publish(node_of(gateway), part)
