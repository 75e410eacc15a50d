# SPDX-License-Identifier: Apache-2.0
"""Pure: which removals are carried out, and which are held back because they would take too much at once.

Gateways are drained before they go. One that is to go without it waits for the word on the node that comes
after everything else; if with it most of the node would go, and nobody said that this is meant, all stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from epic.ads.snapshot import ENDPOINT, ENVOY_TYPES, INSTANCE, SIBLINGS, TUNNEL
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.desired import NodeState

Removals = Mapping[str, Sequence[str]]
"""Names by type."""


class RemovalGuard:
    """Stands between the control plane's removals and the cache."""

    def __init__(self, cache: ResourceCache) -> None:
        self._cache = cache
        self._waiting: dict[str, dict[str, list[str]]] = {}
        self._held: frozenset[str] = frozenset()

    @property
    def held(self) -> frozenset[str]:
        """Gateways that stay although they are to go."""
        return self._held

    @property
    def waiting(self) -> bool:
        """Whether removals wait for a decision."""
        return bool(self._waiting.keys() - self._held)

    def let_through(self, type_url: str, names: Sequence[str]) -> list[str]:
        """Those of the removals that may be carried out at once; the others wait for `decide`."""
        by_gateway: dict[str, list[str]] = {}
        for name in names:
            by_gateway.setdefault(self._gateway(type_url, name), []).append(name)
        through: list[str] = []
        for gateway, mine in by_gateway.items():
            if gateway in self._waiting or self._closes(type_url, gateway, mine):
                self._waiting.setdefault(gateway, {}).setdefault(type_url, []).extend(mine)
            else:
                through += mine
        return through

    def restore(self, type_url: str, names: Iterable[str]) -> None:
        """These are wanted (again)."""
        if not self._waiting:
            return
        again = set(names)
        for waiting in self._waiting.values():
            if type_url in waiting:
                waiting[type_url] = [name for name in waiting[type_url] if name not in again]
                if not waiting[type_url]:
                    del waiting[type_url]
        self._waiting = {gateway: left for gateway, left in self._waiting.items() if left}
        self._held &= self._waiting.keys()

    def decide(self, state: NodeState) -> Removals:
        """What is to be removed now that this is known of the node, in order; the rest is `held`."""
        leaving = {g for g, waiting in self._waiting.items() if INSTANCE in waiting}
        meant = bool(state.digest) and state.meant_digest == state.digest
        too_many = len(leaving) > 1 and 2 * len(leaving) > len(self._cache.instances)
        self._held = frozenset(leaving) if too_many and not meant else frozenset()
        freed = [self._waiting.pop(gateway) for gateway in list(self._waiting) if gateway not in self._held]
        return dict(_merge(freed))

    def clear(self) -> None:
        """Everything goes: nothing waits."""
        self._waiting.clear()
        self._held = frozenset()

    def _gateway(self, type_url: str, name: str) -> str:
        if type_url == TUNNEL:
            tunnel = self._cache.tunnels.get(int(name)) if name.isdecimal() else None
            return tunnel.gateway if tunnel else ""
        return name if type_url in {INSTANCE, SIBLINGS} else name.partition("/")[0]

    def _closes(self, type_url: str, gateway: str, names: Sequence[str]) -> bool:
        """Whether a gateway that nobody drained would lose what it serves with, all of one kind."""
        instance = self._cache.instances.get(gateway)
        if instance is None or instance.draining:
            return False
        if type_url == INSTANCE:
            return True
        if type_url not in ENVOY_TYPES:
            return False
        part = self._cache.parts.get(gateway, {}).get(type_url, {})
        gone = {name.partition("/")[2] for name in names}
        return bool(part) and part.keys() <= gone


def _merge(freed: Sequence[Mapping[str, Sequence[str]]]) -> Iterator[tuple[str, list[str]]]:
    # As the control plane sends removals.
    order = [*reversed(ENVOY_TYPES), ENDPOINT, TUNNEL, SIBLINGS, INSTANCE]
    for type_url in order:
        names = [name for waiting in freed for name in waiting.get(type_url, ())]
        if names:
            yield type_url, names
