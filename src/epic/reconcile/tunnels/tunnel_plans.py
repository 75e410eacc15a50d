# SPDX-License-Identifier: Apache-2.0
"""What is to be done so that gateways have the tunnels they are to have, within what may be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from epic.lifecycle.conditions import with_connected, with_tunnels_pending
from epic.model.base import now
from epic.model.instances import ProxyInstance, Unconnected
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.model.values.naming import GatewayId
from epic.overlap import unmapped_cluster
from epic.reconcile.tunnels.tunnel_room import NodeRoom, TunnelRoom
from epic.reconcile.world import World
from epic.store.interface import Reader
from epic.tunnels import (
    Connection,
    TunnelPlan,
    WantedTunnel,
    behind_first,
    key_of,
    plan,
    tunnel_endpoints,
    wanted_tunnels,
    with_kept_endpoints,
    within_room,
)

_PATIENCE = timedelta(minutes=15)
"""So long a newcomer waits for tunnels at most; deleted ones that take their room are gone by then."""


@dataclass(frozen=True)
class GatewayPlan:
    """What there is to do for a gateway.

    When it is done, `unconnected` workload nodes are without tunnels, since the account may have `limit`, and
    what is `crowded_out` is not connected, since EPIC nodes have no room: those of `apart` for none at all.
    `expected` are the tunnels that are to be made, by this plan or when deleted ones are gone.
    """

    gateway: GatewayId
    change: TunnelPlan
    unconnected: int = 0
    crowded_out: frozenset[Connection] = frozenset()
    limit: int = 0
    apart: frozenset[str] = frozenset()
    expected: tuple[WantedTunnel, ...] = ()

    def shown(self, world: World, proxy: GWProxy) -> GWProxy:
        """The gateway as it is when the change is done."""
        endpoints = tunnel_endpoints(world.tunnels.of(self.gateway), world.nodes)
        endpoints = with_kept_endpoints(endpoints, proxy, self._unseen(world))
        spec = proxy.spec.model_copy(update={"gue_tunnel_endpoints": endpoints})
        update = {"unconnected": self.unconnected, "crowded_out": len(self.crowded_out)}
        status = self.with_let_go(world, proxy).status.model_copy(update=update)
        return with_connected(
            with_unmapped_cluster(world, proxy.model_copy(update={"spec": spec, "status": status})),
            self.limit,
        )

    def _unseen(self, world: World) -> set[int]:
        """The tunnels that cannot be read, or whose EPIC nodes cannot."""
        nodes = world.unreadable.names(Node)
        unseen = {int(t.name) for t in world.tunnels.of(self.gateway) if t.spec.epic_node in nodes}
        return unseen | {int(name) for name in world.unreadable.names(Tunnel, self.gateway.account)}

    def with_let_go(self, world: World, proxy: GWProxy) -> GWProxy:
        """The gateway with those instances held for which tunnels are still to be made, and no others.

        A newcomer may serve when it reaches what those reach that serve already; what comes later keeps it no
        longer than them. While none serves, it waits for all that is planned. One whose node has no room for
        that waits until there is some, or until none serves that reaches more. One that was let go before is
        `short` then, and serves.
        """
        instances = proxy.status.instances
        have = {(key_of(tunnel), tunnel.spec.inside_address) for tunnel in world.tunnels.of(self.gateway)}
        serving = {instance.node for instance in instances if instance.announced}
        reached = {key.workload for key, _ in have if key.epic_node in serving}
        behind = {
            tunnel.key.epic_node
            for tunnel in (self.expected if serving else self.change.create)
            if (tunnel.key.workload in reached or not serving)
            and (tunnel.key, tunnel.inside_address) not in have
        }
        short = {key.epic_node for key in self.crowded_out if key.workload in reached}
        connected = {key.epic_node for key, _ in have}
        states = (self._told(i, connected, short, behind) for i in instances)
        return proxy.model_copy(
            update={"status": proxy.status.model_copy(update={"instances": tuple(states)})}
        )

    def _told(
        self,
        instance: ProxyInstance,
        connected: Collection[str],
        short: Collection[str],
        behind: Collection[str],
    ) -> ProxyInstance:
        if instance.node in self.apart:
            return _with_unconnected(instance, "no-room")
        if not _is_newcomer(instance, connected):
            return _with_unconnected(instance, "", short=instance.node in short)
        if instance.node in short:
            return _with_unconnected(instance, "no-room")
        may_wait = now() - instance.since < _PATIENCE
        return _with_unconnected(instance, "pending" if may_wait and instance.node in behind else "")


class Planner:
    """Plans gateways of an account, first come, first served.

    What is planned counts as if it was done: what one was promised another does not get.
    """

    def __init__(self, reader: Reader, world: World, account: str) -> None:
        self._world = world
        self._account = account
        self._room = TunnelRoom(reader, world, account)
        self._nodes = NodeRoom(world, account)

    @property
    def is_full(self) -> bool:
        """Whether the account gets no more tunnels."""
        return self._room.is_full

    def plan(self, name: str) -> GatewayPlan:
        """The plan of a gateway; the tunnels of one that is gone are to go."""
        gateway, room = GatewayId(self._account, name), self._room
        proxy, stored = self._world.proxies.get(gateway), self._world.tunnels.of(gateway)
        if self._world.unreadable.has(GWProxy, self._account, name):
            return GatewayPlan(gateway, TunnelPlan((), (), ()))
        if proxy is None:
            room.take(name, 0, 0)
            return GatewayPlan(gateway, TunnelPlan((), (), tuple(stored)))
        wanted = wanted_tunnels(proxy, self._world.backends.workloads(gateway))
        change = self._seen(plan(within_room(wanted, stored, room.nodes(name)), stored), proxy)
        serving = {i.node for i in proxy.status.instances if i.announced}
        missing = behind_first(change.create, map(key_of, stored), serving)
        allowed = missing[: room.new]
        created = self._nodes.admit(allowed)
        dropped = {tunnel.name for tunnel in change.delete}
        kept = {key_of(tunnel) for tunnel in stored if tunnel.name not in dropped}
        kept |= {tunnel.key for tunnel in created}
        room.take(name, len({key.workload for key in kept}), len(created))
        crowded_out = {tunnel.key for tunnel in allowed} - kept
        left_out = {tunnel.key for tunnel in wanted} - kept - crowded_out
        connected = {key.epic_node for key in kept}
        return GatewayPlan(
            gateway,
            replace(change, create=tuple(created)),
            len({key.workload for key in left_out}),
            frozenset(crowded_out),
            room.limit,
            # Where none has any tunnels, none is better than another.
            frozenset({key.epic_node for key in crowded_out} - connected if connected else ()),
            tuple(tunnel for tunnel in missing if tunnel.key not in crowded_out),
        )

    def _seen(self, change: TunnelPlan, proxy: GWProxy) -> TunnelPlan:
        """Of the change what does not come of objects that cannot be read.

        What leads to the endpoints of such a route or slice stays while its instance is there. What such a
        tunnel may connect is connected.
        """
        unreadable, delete = self._world.unreadable, change.delete
        if unreadable.has_any(self._account, GWRoute, GWEndpointSlice):
            here = {i.inside_address for i in proxy.status.instances if i.published}
            delete = tuple(tunnel for tunnel in delete if tunnel.spec.inside_address not in here)
        create = tuple(
            wanted
            for wanted in change.create
            if not unreadable.may_name(
                Tunnel, self._account, (str(wanted.inside_address), wanted.key.workload.name)
            )
        )
        return replace(change, create=create, delete=delete)


def with_tunnels_later(world: World, proxy: GWProxy) -> GWProxy:
    """The gateway as it is until its tunnels are made: while none serves, newcomers wait."""
    status = proxy.status
    serves = any(instance.announced for instance in status.instances)
    if not proxy.deleting and not serves and world.backends.count_workloads(proxy.id):
        connected = {tunnel.spec.epic_node for tunnel in world.tunnels.of(proxy.id)}
        instances = tuple(
            _with_unconnected(i, i.unconnected if i.waits_for_tunnels else "pending")
            if _is_newcomer(i, connected)
            else i
            for i in status.instances
        )
        status = status.model_copy(update={"instances": instances})
    # Which addresses Envoy gets must not change when the tunnels are there.
    return with_tunnels_pending(with_unmapped_cluster(world, proxy.model_copy(update={"status": status})))


def _is_newcomer(instance: ProxyInstance, connected: Collection[str]) -> bool:
    """Whether it has not been let go yet: it has waited since it was made, or has no tunnels at all.

    One that served, and starts anew, is none: it serves with what it has.
    """
    return not instance.announced and (instance.waits_for_tunnels or instance.node not in connected)


def is_pending(proxy: GWProxy) -> bool:
    """Whether any instance waits for tunnels that are still to be made."""
    return any(instance.unconnected == "pending" for instance in proxy.status.instances)


def with_unmapped_cluster(world: World, proxy: GWProxy) -> GWProxy:
    """The gateway with the cluster whose addresses are not mapped, if there are endpoints behind it."""
    if proxy.status.unmapped_cluster is not None:
        return proxy
    workloads = world.backends.workloads(proxy.id)
    unmapped = unmapped_cluster(None, {workload.cluster_id for workload in workloads})
    status = proxy.status.model_copy(update={"unmapped_cluster": unmapped})
    return proxy.model_copy(update={"status": status})


def _with_unconnected(instance: ProxyInstance, state: Unconnected, *, short: bool = False) -> ProxyInstance:
    same = (instance.unconnected, instance.short) == (state, short)
    return instance if same else instance.model_copy(update={"unconnected": state, "short": short})
