# SPDX-License-Identifier: Apache-2.0
"""How many tunnels there may be yet, of an account and on a node, while gateways are planned one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from epic.model.naming import NODE_TUNNELS, GatewayId
from epic.model.resources import Account, AccountSpec
from epic.reconcile.world import World
from epic.store.interface import Reader
from epic.tunnels import WantedTunnel

_UNGONE_FACTOR = 3
"""Tunnels that were deleted but are not gone count, too: with them there are at most so many limits' worth.

Moving all instances at once takes twice the limit for a while.
"""


def excess(reader: Reader, world: World, account: str) -> int:
    """How many tunnels the account's gateways are to have beyond what may be, made already or not."""
    limit = _limit(reader, account)
    wanted = missing = 0
    for name in world.names(account):
        gateway = GatewayId(account, name)
        tunnels = world.backends.count_workloads(gateway) * _copies(world, gateway)
        wanted += tunnels
        missing += max(0, tunnels - world.tunnels.living(gateway))
    return max(0, wanted - limit, missing - _new(world, account, limit))


def _limit(reader: Reader, account: str) -> int:
    stored = reader.find(Account, "", account)
    return (stored.spec if stored else AccountSpec()).tunnel_limit


def _new(world: World, account: str, limit: int) -> int:
    """How many tunnels may be made, whatever they are for."""
    return max(0, _UNGONE_FACTOR * limit - world.tunnels.total(account))


def _copies(world: World, gateway: GatewayId) -> int:
    """How many tunnels to a workload node count for the gateway."""
    proxy = world.proxies.get(gateway)
    if proxy is None:
        return 1
    published = sum(instance.published for instance in proxy.status.instances)
    group = world.groups.get((gateway.account, proxy.spec.group))
    return max(1, min(published, group.spec.envoy_replica_count if group else published))


class TunnelRoom:
    """What is left of an account's tunnels.

    Those of a gateway count as workload nodes times instances that it is to have, so that an instance that
    moves has its tunnels at both places.
    """

    def __init__(self, reader: Reader, world: World, account: str) -> None:
        self.limit = _limit(reader, account)
        self._world = world
        self._account = account
        nodes = world.tunnels.workload_nodes(account)
        self._used = {name: count * self._copies(name) for name, count in nodes.items()}
        self._in_use = sum(self._used.values())
        self.new = _new(world, account, self.limit)
        """How many may be made, whatever they are for."""

    @property
    def is_full(self) -> bool:
        """Whether nobody gets any more."""
        return self._in_use >= self.limit or not self.new

    def nodes(self, proxy: str) -> int:
        """To how many workload nodes this gateway may have tunnels."""
        others = self._in_use - self._used.get(proxy, 0)
        return max(0, self.limit - others) // self._copies(proxy)

    def take(self, proxy: str, nodes: int, created: int) -> None:
        """The gateway is to have tunnels to so many workload nodes; so many are made for that."""
        used = nodes * self._copies(proxy)
        self._in_use += used - self._used.get(proxy, 0)
        self._used[proxy] = used
        self.new -= created

    def _copies(self, name: str) -> int:
        return _copies(self._world, GatewayId(self._account, name))


class NodeRoom:
    """What is left of the nodes' tunnels for an account: it may have as many on a node as are free there.

    So a node is never over-full, whatever all limits come to, and however many accounts take what they can,
    one more can still have as many as each of them.
    """

    def __init__(self, world: World, account: str) -> None:
        self._world = world
        self._account = account
        self._taken: Counter[str] = Counter()

    def admit(self, wanted: Iterable[WantedTunnel]) -> list[WantedTunnel]:
        """Those that their nodes have room for, which they take."""
        found = []
        for tunnel in wanted:
            node = tunnel.key.epic_node
            taken = self._taken[node]
            own = self._world.tunnels.share(self._account, node) + taken
            free = NODE_TUNNELS - self._world.tunnels.on_node(node) - taken
            if own < free:
                self._taken[node] += 1
                found.append(tunnel)
        return found
