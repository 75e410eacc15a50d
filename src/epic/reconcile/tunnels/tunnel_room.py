# SPDX-License-Identifier: Apache-2.0
"""How many tunnels and endpoints there may be yet, of an account and on a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from epic.errors import Exhausted
from epic.model.resources import Account, AccountSpec
from epic.model.values.naming import NODE_ENDPOINTS, NODE_TUNNELS, GatewayId
from epic.reconcile.counts.account_tunnels import TunnelCounts
from epic.reconcile.world import World
from epic.store.interface import Reader
from epic.tunnels import WantedTunnel

_UNGONE_FACTOR = 3
"""Tunnels that were deleted but are not gone count, too: with them there are at most so many limits' worth.

Moving all instances at once takes twice the limit for a while.
"""


def excess(reader: Reader, world: World, account: str) -> int:
    """How many tunnels the account's gateways are to have beyond what may be, made already or not.

    Gateways that go leave their room to others from the first.
    """
    limit = _limit(reader, account)
    counts = _counts(world, account)
    return max(0, counts.wanted - limit, counts.missing - _new(world, account, limit))


def _counts(world: World, account: str) -> TunnelCounts:
    world.account_tunnels.take(world.endpoints.changed, partial(_of_gateway, world))
    return world.account_tunnels.of(account)


def _of_gateway(world: World, gateway: GatewayId) -> TunnelCounts:
    proxy, copies = world.proxies.get(gateway), _copies(world, gateway)
    stays = proxy is not None and not proxy.deleting
    wanted = world.backends.count_workloads(gateway) * copies if stays else 0
    missing = max(0, wanted - world.tunnels.living(gateway))
    return TunnelCounts(world.tunnels.count_workloads(gateway) * copies, wanted, missing)


def _limit(reader: Reader, account: str) -> int:
    stored = reader.find_readable(Account, "", account)
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
        self._in_use = _counts(world, account).used
        self._used: dict[str, int] = {}
        """What is planned for gateways, made already or not."""
        self.new = _new(world, account, self.limit)
        """How many may be made, whatever they are for."""

    @property
    def is_full(self) -> bool:
        """Whether nobody gets any more."""
        return self._in_use >= self.limit or not self.new

    def nodes(self, proxy: str) -> int:
        """To how many workload nodes this gateway may have tunnels."""
        others = self._in_use - self._used_by(proxy)
        return max(0, self.limit - others) // self._copies(proxy)

    def take(self, proxy: str, nodes: int, created: int) -> None:
        """The gateway is to have tunnels to so many workload nodes; so many are made for that."""
        used = nodes * self._copies(proxy)
        self._in_use += used - self._used_by(proxy)
        self._used[proxy] = used
        self.new -= created

    def _used_by(self, proxy: str) -> int:
        if proxy in self._used:
            return self._used[proxy]
        return _of_gateway(self._world, GatewayId(self._account, proxy)).used

    def _copies(self, name: str) -> int:
        return _copies(self._world, GatewayId(self._account, name))


class NodeRoom:
    """What is left of the nodes' tunnels and endpoints for an account: as many on a node as are free there.

    So a node is never over-full, whatever all limits come to, and however many accounts take what they can,
    one more can still have as many as each of them.
    """

    def __init__(self, world: World, account: str) -> None:
        self._world = world
        self._account = account

    def admit(self, wanted: Iterable[WantedTunnel]) -> list[WantedTunnel]:
        """Those that their nodes have room for, with the endpoints that they lead to."""
        tunnels: Counter[str] = Counter()
        endpoints: Counter[str] = Counter()
        found = []
        for tunnel in wanted:
            node, leads_to = tunnel.key.epic_node, self._endpoints(tunnel)
            if not self._has_room(node, tunnels[node] + 1, endpoints[node] + leads_to):
                continue
            tunnels[node] += 1
            endpoints[node] += leads_to
            found.append(tunnel)
        return found

    def _endpoints(self, tunnel: WantedTunnel) -> int:
        gateway, key = GatewayId(self._account, tunnel.key.proxy), tunnel.key
        if self._world.endpoints.has_tunnel(gateway, key.workload, key.epic_node):
            return 0
        return self._world.endpoints.behind(gateway, key.workload)

    def _has_room(self, node: str, tunnels: int, endpoints: int) -> bool:
        """Whether the account may have so many more on the node."""
        world, account = self._world, self._account
        own, all_ = world.tunnels.share(account, node) + tunnels, world.tunnels.on_node(node) + tunnels
        if own > NODE_TUNNELS - all_:
            return False
        return not endpoints or not _crowds(world, account, node, endpoints)


def _crowds(world: World, account: str, node: str, more: int = 0) -> bool:
    """Whether the account would have more endpoints on the node than would be free there."""
    own = world.endpoints.shares(account).get(node, 0) + more
    return own > NODE_ENDPOINTS - world.endpoints.on_node(node) - more


@contextmanager
def within_room_for_endpoints(world: World, account: str) -> Iterator[None]:
    """Raise Exhausted if what the block writes leads more endpoints to a node than it has room for.

    Tunnels that are still to be made are made only if there is room for those that they lead to.
    """
    before = dict(world.endpoints.shares(account))
    yield
    for node, own in world.endpoints.shares(account).items():
        if own > before.get(node, 0) and _crowds(world, account, node):
            raise Exhausted(
                "the platform has no room for more endpoints of this account now; its operators can see why",
                f"account {account!r} would have {own} of {world.endpoints.on_node(node)} endpoints on node "
                f"{node}, which has room for {NODE_ENDPOINTS}, and for no account more than are free there; "
                "add a node and drain that one, or lower the endpointLimit of accounts",
            )
