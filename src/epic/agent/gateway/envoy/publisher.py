# SPDX-License-Identifier: Apache-2.0
"""Telling the node's Envoys what the control plane sent for them, and which endpoints are not reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from epic.ads.snapshot import Snapshot
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Instance
from epic.agent.gateway.envoy.endpoint_health import EndpointMarks
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets


class Publisher:
    """Publishes what is dirty in the cache; a publication costs what was changed."""

    def __init__(self, cache: ResourceCache, registry: EnvoyRegistry, sockets: XdsSockets) -> None:
        self._cache = cache
        self._registry = registry
        self._sockets = sockets
        self._marks = EndpointMarks(self._is_reached)
        self._down: frozenset[int] = frozenset()

    def keep(self, gateways: Collection[str]) -> None:
        """Have sockets for these gateways and no others."""
        self._sockets.keep(gateways)
        self._marks.keep(gateways)

    def set_down(self, down: frozenset[int]) -> None:
        """These tunnels are down: endpoints behind them are unhealthy."""
        changed, self._down = self._down ^ down, down
        tunnels = (self._cache.tunnels.get(id_) for id_ in changed)
        for gateway in {tunnel.gateway for tunnel in tunnels if tunnel is not None}:
            self._cache.dirty.touch_reach(gateway)

    async def publish(
        self, parts: Mapping[str, Snapshot | None], instances: Mapping[str, Instance], broken: Collection[str]
    ) -> None:
        """Tell Envoys their parts, except those of `broken` gateways; others have their turn in between.

        What changes meanwhile stays dirty.
        """
        cache = self._cache
        for gateway in sorted(parts.keys() - broken):
            part, instance = parts[gateway], instances.get(gateway)
            touched = cache.dirty.take_reach(gateway)
            if instance is not None and gateway in self._registry.envoys:
                # Without a revision there is no accepted configuration: what the Envoy has stays.
                told = part or ({} if instance.revision else None)
                self._tell(instance, told and await self._marks.mark(gateway, told, touched))
            same = cache.parts.get(gateway) is part and cache.instances.get(gateway) is instance
            if same and not cache.dirty.is_touched(gateway):
                cache.dirty.gateways.discard(gateway)

    def _tell(self, instance: Instance, told: Snapshot | None) -> None:
        gateway = instance.gateway
        # It may have gone while it was looked at.
        if told is None or gateway not in self._registry.envoys:
            return
        if self._registry.publish(gateway, told, instance.revision):
            self._sockets.publish(gateway, told)

    def _is_reached(self, name: str) -> bool:
        # To what has no tunnel, or none yet, the programs drop all.
        tunnel = self._cache.tunnel_to(name)
        return tunnel is not None and tunnel not in self._down
