# SPDX-License-Identifier: Apache-2.0
"""Which endpoints a round makes and takes away, what waits for Envoys, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set

from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.envoy.readiness import RELEASE_SECONDS, released_until
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.kernel import GatewayKernel
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.dirty import Difference
from epic.agent.gateway.plans.leaving import Leaving, Told, held_back
from epic.agent.runtime.worker import Worker
from epic.agent.tunnel.endpoints import EndpointKey
from epic.log_rate import LogRate

log = logging.getLogger(__name__)

_PROBLEM_SECONDS = 2 * RELEASE_SECONDS
"""Endpoints that wait so long do so for an Envoy that does not let go of others."""


class EndpointChanges:
    """The endpoints of this node, from one round to the next."""

    def __init__(
        self,
        cache: ResourceCache,
        registry: EnvoyRegistry,
        told: Told,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._told = told
        self._clock = clock
        self._leaving = Leaving()
        self._held_since: float | None = None
        self._rate = LogRate(log)
        self.held: frozenset[EndpointKey] = frozenset()
        """Those that wait until others of their gateways are gone."""
        self.waits = False
        """Whether some stay until Envoys let go of them."""
        self.problems: tuple[str, ...] = ()
        """What hinders them for long, a line."""

    async def refresh(self, worker: Worker, kernel: GatewayKernel) -> None:
        """Find out what is there of those of which it is not known."""
        endpoints, dirty = self._cache.dirty.endpoints, self._cache.dirty
        if not endpoints.compared:
            there = await worker.run(kernel.endpoints)
            for _ in endpoints.compare(self._cache.endpoints(), there, self._cache.known):
                await asyncio.sleep(0)
            for gateway in self._cache.instances:
                dirty.touch_reach(gateway)
        elif stale := endpoints.stale:
            endpoints.refreshed(stale, await worker.run(kernel.endpoints, stale))
            self._touch(stale)

    def differences(self) -> dict[EndpointKey, Difference]:
        """Those that are not as they should be, but for what has to wait."""
        found = self._cache.dirty.endpoints.compact(self._cache.known)
        gateways = plan.gateways_by_inside(self._cache.instances)
        self.held = held_back(found, gateways, self._cache.endpoint_counts)
        self._say()
        return {key: d for key, d in found.items() if key not in self.held} if self.held else found

    def released(self, leaving: Mapping[str, Set[EndpointKey]]) -> frozenset[EndpointKey]:
        """Those of what is wanted no more, by gateway, that may go by now."""
        now, envoys = self._clock(), self._registry.envoys
        # Of an Envoy that nothing was told yet nobody knows what it has.
        self._leaving.follow(
            leaving, self._cache.dirty.gateways, self._told, lambda g: self._registry.published_at(g) or now
        )
        released = self._leaving.released(lambda g: released_until(envoys[g], now) if g in envoys else 0.0)
        self.waits = len(released) < sum(map(len, leaving.values()))
        return released

    def note(self, actions: Iterable[plan.Action], troubled: Collection[int]) -> None:
        """These were done, but for those with these `id`s."""
        endpoints = self._cache.dirty.endpoints
        for action in actions:
            match action:
                case plan.SetEndpoints(_, changed) if id(action) in troubled:
                    endpoints.mark_stale(changed)
                case plan.DeleteEndpoints(changed) if id(action) in troubled:
                    endpoints.mark_stale(changed)
                case plan.SetEndpoints(gateway, made):
                    endpoints.made(made)
                    self._cache.dirty.touch_reach(gateway, (f"{gateway}/{address}" for _, address in made))
                case plan.DeleteEndpoints(keys):
                    endpoints.removed(keys)

    def _touch(self, keys: Iterable[EndpointKey]) -> None:
        gateways = plan.gateways_by_inside(self._cache.instances)
        names: dict[str, list[str]] = {}
        for inside, address in keys:
            if (gateway := gateways.get(inside)) is not None:
                names.setdefault(gateway, []).append(f"{gateway}/{address}")
        for gateway, mine in names.items():
            self._cache.dirty.touch_reach(gateway, mine)

    def _say(self) -> None:
        if not self.held:
            self._held_since, self.problems = None, ()
            return
        if self._held_since is None:
            self._held_since = self._clock()
        if self._clock() - self._held_since < _PROBLEM_SECONDS:
            return
        insides = {inside for inside, _ in self.held}
        gateways = sorted({g for g, i in self._cache.instances.items() if insides & set(i.insides)})
        more = f" and {len(gateways) - 1} more" if len(gateways) > 1 else ""
        before, self.problems = (
            self.problems,
            (
                f"{len(self.held)} endpoints of gateway {gateways[0]}{more} wait until the Envoys "
                "of their accounts let go of others that are wanted no more",
            ),
        )
        if not before:
            self._rate.warning("%s", self.problems[0])
