# SPDX-License-Identifier: Apache-2.0
"""Pure: endpoints that are wanted no more while Envoys may still send to them, and what waits for them.

The programs have room for a bounded number of endpoints: what a gateway's Envoy does not let go of takes room
from what is to come for the same gateway, not from others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set

from epic.agent.gateway.plans.dirty import Difference
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Address

_SHARED = 8192
"""As many endpoints of all gateways may be leaving in equal shares, and as many in shares of what they have.

Together they are half of what the programs have room for beyond what the control plane gives to a node.
"""

Told = Callable[[str, Collection[EndpointKey]], frozenset[EndpointKey]]
"""Those of a gateway's endpoints that its Envoy was told last."""


def most_leaving(gateways: int, endpoints: int, total: int) -> int:
    """How many of a gateway's endpoints may be leaving before more are made; `total` are those of all."""
    return _SHARED // max(gateways, 1) + endpoints * _SHARED // max(total, _SHARED)


def held_back(
    differences: Mapping[EndpointKey, Difference],
    gateways: Mapping[Address, str],
    endpoints: Mapping[str, int],
) -> frozenset[EndpointKey]:
    """New endpoints that are not made before others of their gateways are gone.

    `gateways` are those here by inside addresses, `endpoints` says how many each is to have.
    """
    leaving = Counter(
        gateways[key[0]]
        for key, (there, wanted) in differences.items()
        if wanted is None and there is not None and key[0] in gateways
    )
    count, total = len(set(gateways.values())), sum(endpoints.values())
    most = {g: most_leaving(count, endpoints.get(g, 0), total) for g in leaving}
    excess = {g: number - most[g] for g, number in leaving.items() if number > most[g]}
    return frozenset(_held_back(differences, gateways, excess)) if excess else frozenset()


def _held_back(
    differences: Mapping[EndpointKey, Difference], gateways: Mapping[Address, str], excess: dict[str, int]
) -> Iterator[EndpointKey]:
    for key, (there, wanted) in differences.items():
        if there is None and wanted is not None and excess.get(gateway := gateways.get(key[0], ""), 0) > 0:
            excess[gateway] -= 1
            yield key


class Leaving:
    """Since when endpoints that are wanted no more are not among what their Envoys were told.

    What this costs is the keys' hashes: sets and dictionaries are made of each other, where these are known.
    """

    def __init__(self) -> None:
        self._since: dict[str, dict[EndpointKey, float]] = {}

    def follow(
        self,
        leaving: Mapping[str, Set[EndpointKey]],
        doubtful: Collection[str],
        told: Told,
        told_at: Callable[[str], float],
    ) -> None:
        """These leave, by gateway, and no others. Those of `doubtful` gateways may have been told again.

        `told_at` says when the gateway's Envoy was told something last, in monotonic seconds.
        """
        before, self._since = self._since, {}
        for gateway, keys in leaving.items():
            since = before.get(gateway, {})
            for key in set(since) - keys:
                del since[key]
            new = keys - set(since)
            asked = keys if gateway in doubtful else new
            used = told(gateway, asked) if asked else frozenset()
            since.update(dict.fromkeys(new, told_at(gateway)))
            for key in used:
                del since[key]
            self._since[gateway] = since

    def released(self, until: Callable[[str], float]) -> frozenset[EndpointKey]:
        """Those that may go: their Envoys were not told them since `until` or longer."""
        return frozenset[EndpointKey]().union(
            *(_not_after(since, until(gateway)) for gateway, since in self._since.items())
        )


def _not_after(since: dict[EndpointKey, float], until: float) -> Iterable[EndpointKey]:
    if max(since.values(), default=until) <= until:
        return since
    return [key for key, at in since.items() if at <= until]
