# SPDX-License-Identifier: Apache-2.0
"""Telling the node's Envoys what the control plane sent for them, and which endpoints are not reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from epic.ads.snapshot import Snapshot
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import Instance
from epic.agent.gateway.envoy.endpoint_health import EndpointMarks, Unreached
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.agent.tunnel.endpoints import EndpointKey


class _Source(NamedTuple):
    """What an Envoy was to have last, before it was looked at what of it is reached."""

    part: Snapshot
    revision: str


class Publisher:
    """Publishes what is dirty in the cache; a publication costs what was changed."""

    def __init__(self, cache: ResourceCache, registry: EnvoyRegistry, sockets: XdsSockets) -> None:
        self._cache = cache
        self._registry = registry
        self._sockets = sockets
        self._marks = EndpointMarks(self._find_unreached)
        self._sources: dict[str, _Source] = {}
        self._down: frozenset[int] = frozenset()

    def keep(self, gateways: Collection[str]) -> None:
        """Have sockets for these gateways and no others."""
        self._sockets.keep(gateways)
        self._marks.keep(gateways)
        self._sources = {g: source for g, source in self._sources.items() if g in gateways}

    def told(self, gateway: str, endpoints: Collection[EndpointKey]) -> frozenset[EndpointKey]:
        """Those of a gateway's endpoints that its Envoy was told last."""
        names = {f"{gateway}/{address}": (inside, address) for inside, address in endpoints}
        return frozenset(names[name] for name in self._marks.told(gateway, frozenset(names)))

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
            if instance is not None and (source := self._source(instance, part)) is not None:
                self._tell(gateway, await self._marks.mark(gateway, source.part, touched), source.revision)
            same = cache.parts.get(gateway) is part and cache.instances.get(gateway) is instance
            if same and not cache.dirty.is_touched(gateway):
                cache.dirty.gateways.discard(gateway)

    def _source(self, instance: Instance, part: Snapshot | None) -> _Source | None:
        """What an Envoy is to have, if anything was ever accepted."""
        if instance.gateway not in self._registry.envoys:
            return None
        if part or instance.revision:
            self._sources[instance.gateway] = _Source(part or {}, instance.revision)
        # Without a revision there is no accepted configuration: what the Envoy has stays.
        return self._sources.get(instance.gateway)

    def _tell(self, gateway: str, told: Snapshot, revision: str) -> None:
        # It may have gone while it was looked at.
        if gateway in self._registry.envoys and self._registry.publish(gateway, told, revision):
            self._sockets.publish(gateway, told)

    def _find_unreached(self, names: Iterable[str]) -> Unreached:
        down, none = set[str](), set[str]()
        for name in names:
            tunnel = self._cache.tunnel_to(name)
            if tunnel is None:
                none.add(name)
            elif tunnel in self._down:
                down.add(name)
        return Unreached(down, none)
