# SPDX-License-Identifier: Apache-2.0
"""How many tunnels an account may have yet, while its gateways are planned one after another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from epic.model.resources import Account, AccountSpec, GWProxy, LBServiceGroup, Tunnel
from epic.store.interface import Reader
from epic.tunnels import WorkloadNode, key_of

_UNGONE_FACTOR = 3
"""Tunnels that were deleted but are not gone count, too: with them there are at most so many limits' worth.

Moving all instances at once takes twice the limit for a while.
"""


class TunnelRoom:
    """What is left of an account's tunnels.

    Those of a gateway count as workload nodes times instances that it is to have, so that an instance that
    moves has its tunnels at both places.
    """

    def __init__(
        self, reader: Reader, account: str, proxies: Mapping[str, GWProxy], tunnels: Iterable[Tunnel]
    ) -> None:
        stored = reader.find(Account, "", account)
        self.limit = (stored.spec if stored else AccountSpec()).tunnel_limit
        replicas = {g.name: g.spec.envoy_replica_count for g in reader.list(LBServiceGroup, account)}
        self._copies = {name: _copies(proxy, replicas) for name, proxy in proxies.items()}
        nodes: defaultdict[str, set[WorkloadNode]] = defaultdict(set)
        total = 0
        for tunnel in tunnels:
            total += 1
            if not tunnel.deleting:
                nodes[tunnel.spec.proxy].add(key_of(tunnel).workload)
        self._used = {name: len(found) * self._copies.get(name, 1) for name, found in nodes.items()}
        self._in_use = sum(self._used.values())
        self.new = max(0, _UNGONE_FACTOR * self.limit - total)
        """How many may be made, whatever they are for."""

    @property
    def is_full(self) -> bool:
        """Whether nobody gets any more."""
        return self._in_use >= self.limit or not self.new

    def nodes(self, proxy: str) -> int:
        """To how many workload nodes this gateway may have tunnels."""
        others = self._in_use - self._used.get(proxy, 0)
        return max(0, self.limit - others) // self._copies[proxy]

    def take(self, proxy: str, nodes: int, created: int) -> None:
        """The gateway has tunnels to so many workload nodes now; so many tunnels were made for that."""
        used = nodes * self._copies[proxy]
        self._in_use += used - self._used.get(proxy, 0)
        self._used[proxy] = used
        self.new -= created


def _copies(proxy: GWProxy, replicas: Mapping[str, int]) -> int:
    published = sum(instance.published for instance in proxy.status.instances)
    return max(1, min(published, replicas.get(proxy.spec.group, published)))
