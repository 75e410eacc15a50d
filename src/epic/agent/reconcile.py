"""Brings the node to what the control plane asks for, again after each change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyroute2 import NetlinkError

from epic.ads.snapshot import Snapshot
from epic.agent import plan
from epic.agent.desired import Desired, EndpointKey, Instance, used
from epic.agent.envoys import LET_GO_SECONDS, lets_go
from epic.agent.flags import FlagRoutes
from epic.agent.fleet import Fleet, node_of
from epic.agent.held import Held
from epic.agent.kernel import GatewayKernel, Node
from epic.agent.relay import LocalServer
from epic.agent.worker import Worker
from epic.bpf.dataplane import Endpoint
from epic.errors import EpicError

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.005
_RETRY_SECONDS = 1.0
_RESYNC_SECONDS = 5.0


@dataclass(frozen=True)
class _View:
    """What a round looks at: only what may not be as it should."""

    wanted: Desired
    observed: plan.Observed
    there: dict[EndpointKey, Endpoint]
    """The observed endpoints, which follow what is done."""
    parts: Mapping[str, Snapshot | None]
    """What Envoys are to be told, by gateway."""


class Reconciler:
    """Owns the order: withdraw, add to the kernel, tell Envoys, take from the kernel, announce."""

    def __init__(
        self,
        held: Held,
        kernel: GatewayKernel,
        worker: Worker,
        fleet: Fleet,
        server: LocalServer,
        routes: FlagRoutes,
    ) -> None:
        self._held = held
        self._kernel = kernel
        self._worker = worker
        self._fleet = fleet
        self._server = server
        self._routes = routes
        self._wake = asyncio.Event()
        self._whole = True
        self._trusted = False
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._plumbed: set[str] = set()

    def take(self) -> None:
        """What is held has changed, or is to be worked towards from now on.

        Before the first call nothing is removed: an agent that lost its state must not take down what works.
        """
        instances = self._held.instances
        if self._held.due.gateways or not self._trusted:
            for gateway in self._fleet.envoys.keys() - instances.keys():
                self._server.forget(node_of(gateway))
            standing = self._routes.standing
            self._fleet.keep(instances, (g for g, i in instances.items() if i.public in standing))
        self._trusted = True
        self._wake.set()

    def wake(self) -> None:
        """Something changed on the node: look at all of it."""
        self._whole = True
        self._wake.set()

    async def run(self, done: Callable[[bool], None]) -> None:
        """Reconcile until cancelled; `done` is told after each round whether tunnels changed."""
        while True:
            try:
                async with asyncio.timeout(_RESYNC_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                self._whole = True
                await self._routes.observe()
            # What the control plane sends at once arrives within this time.
            await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                done(await self.round())
            except (EpicError, OSError, NetlinkError) as error:
                log.error("the node cannot be looked at: %s; trying again", error)
                self._again(_RETRY_SECONDS)
                done(False)

    def wake_if_waiting(self) -> None:
        """An Envoy has answered: endpoints that it let go of may now be removed."""
        if self._waiting:
            self._wake.set()

    async def announce(self) -> bool:
        """Make the flag routes right; True when one changed."""
        if not self._trusted:
            return False
        addresses = {g: i.public for g, i in self._held.instances.items()}
        return await self._routes.sync(addresses, self._fleet.envoys, self._plumbed)

    async def round(self) -> bool:
        """Look at what may not be right and make it so; True when tunnels were set or deleted."""
        await self.announce()
        whole, self._whole = self._whole, False
        node = await self._worker.run(self._kernel.observe, whole)
        await self._look_at_endpoints()
        view = self._view(node)
        actions = plan.additions(view.wanted, view.observed)
        failed = await self._apply(view, actions)
        if whole and self._trusted and not failed:
            await self._worker.run(self._kernel.settle)
        broken = plan.unplumbed(view.wanted, view.observed, failed)
        self._publish(view, {g for a in failed if (g := plan.gateway_of(a)) is not None})
        if self._trusted:
            removals = self._removals(view)
            failed += await self._apply(view, removals)
            actions += removals
        self._plumbed = set(view.wanted.instances) - broken
        await self.announce()
        if failed:
            self._again(_RETRY_SECONDS)
        return any(isinstance(action, plan.SetTunnel | plan.DeleteTunnel) for action in actions)

    async def _look_at_endpoints(self) -> None:
        endpoints = self._held.due.endpoints
        if not endpoints.compared:
            there = await self._worker.run(self._kernel.endpoints)
            endpoints.compare(self._held.endpoints(), there, self._held.known)
        elif doubtful := endpoints.doubtful:
            endpoints.looked(doubtful, await self._worker.run(self._kernel.endpoints, doubtful))

    def _view(self, node: Node) -> _View:
        held, due = self._held, self._held.due
        differences = due.endpoints.settle(held.known)
        wanted = {key: d.wanted for key, d in differences.items() if d.wanted is not None}
        there = {key: d.there for key, d in differences.items() if d.there is not None}
        ids = due.tunnels | self._kernel.unsure | {endpoint.tunnel for endpoint in wanted.values()}
        known = {id_: held.tunnels[id_] for id_ in ids if held.known(id_)}
        tunnels = self._kernel.tunnels(ids)
        due.tunnels = {id_ for id_ in due.tunnels if known.get(id_) != tunnels.get(id_)}
        leaving = there.keys() - wanted.keys()
        return _View(
            wanted=Desired(dict(held.instances), known, wanted, used(leaving, held.instances, held.parts)),
            observed=plan.Observed(node.links, node.attached, tunnels, there, node.elements),
            there=there,
            parts={gateway: held.parts.get(gateway) for gateway in due.gateways},
        )

    async def _apply(self, view: _View, actions: Sequence[plan.Action]) -> list[plan.Action]:
        """Do this; returns what failed."""
        if not actions:
            return []
        failed = await self._worker.run(self._kernel.apply, actions)
        troubled = {id(action) for action in failed}
        endpoints = self._held.due.endpoints
        for action in actions:
            match action:
                case plan.SetEndpoints(_, changed) | plan.DeleteEndpoints(changed) if id(action) in troubled:
                    endpoints.doubt(changed)
                case plan.SetEndpoints(_, made):
                    endpoints.made(made)
                    view.there.update(made)
                case plan.DeleteEndpoints(keys):
                    endpoints.removed(keys)
        return failed

    def _publish(self, view: _View, broken: set[str]) -> None:
        """Tell the Envoys, except those whose new endpoints have no tunnels yet."""
        held = self._held
        for gateway in sorted(view.parts.keys() - broken):
            part, instance = view.parts[gateway], view.wanted.instances.get(gateway)
            if instance is not None and gateway in self._fleet.envoys:
                self._tell(instance, part)
            if held.parts.get(gateway) is part and held.instances.get(gateway) is instance:
                held.due.gateways.discard(gateway)

    def _tell(self, instance: Instance, part: Snapshot | None) -> None:
        # Without a revision there is no accepted configuration: what the Envoy has stays.
        told = part or ({} if instance.revision else None)
        if told is not None and self._fleet.publish(instance.gateway, told, instance.revision):
            self._server.publish(node_of(instance.gateway), told)

    def _removals(self, view: _View) -> list[plan.Action]:
        """What may go by now."""
        now = time.monotonic()
        waiting = plan.waiting(view.wanted, view.observed)
        settled = {
            gateway
            for gateway in waiting - self._held.due.gateways
            if gateway in self._fleet.envoys
            and lets_go(self._fleet.envoys[gateway], now, self._fleet.published_at(gateway))
        }
        self._waiting = bool(waiting - settled)
        if self._waiting:
            self._again(LET_GO_SECONDS)
        return plan.removals(view.wanted, view.observed, settled)

    def _again(self, seconds: float) -> None:
        """Look at the node after this time, if not before."""
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() > loop.time() + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(seconds, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self.wake()
