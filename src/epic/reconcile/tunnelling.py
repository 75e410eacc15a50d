# SPDX-License-Identifier: Apache-2.0
"""Keeps the stored tunnels of gateways at their plan, in the transaction that changes what it rests on."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain

from pydantic import SecretStr

from epic.lifecycle.conditions import with_unconnected
from epic.model.base import Metadata, now
from epic.model.keys import EpochKey
from epic.model.resources import (
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    Node,
    Tunnel,
    TunnelSpec,
)
from epic.overlap import unmapped_cluster
from epic.reconcile.tunnel_room import TunnelRoom
from epic.store.interface import R, Transaction
from epic.tunnels import (
    TunnelPlan,
    WantedTunnel,
    key_of,
    plan,
    proxy_services,
    route_parents,
    route_services,
    tunnel_endpoints,
    wanted_tunnels,
    within_room,
    workload_endpoints,
)


def gateways_of_services(transaction: Transaction, account: str, services: set[str]) -> set[str]:
    """The gateways that send requests to one of these Services."""
    routes = transaction.list(GWRoute, account)
    return {parent for route in routes if route_services(route) & services for parent in route_parents(route)}


def replan(transaction: Transaction, account: str, names: Iterable[str]) -> set[str]:
    """Make, change and delete the tunnels of these gateways, as far as they exist; returns which they were.

    An instance has its tunnels until its node is told to drop it. No more are made than the account may have:
    a condition of the gateway says how many workload nodes are without. Those get what becomes free.
    """
    proxies = {proxy.name: proxy for proxy in transaction.list(GWProxy, account)}
    chosen = sorted(proxies.keys() & set(names))
    waiting = sorted({n for n, proxy in proxies.items() if proxy.status.unconnected}.difference(chosen))
    if not chosen and not waiting:
        return set()
    routes_of = _grouped(transaction.list(GWRoute, account), route_parents)
    slices_of = _grouped(transaction.list(GWEndpointSlice, account), lambda s: [s.spec.parent_ref.uid])
    tunnels_of = _grouped(transaction.list(Tunnel, account), lambda tunnel: [tunnel.spec.proxy])
    nodes = {node.name: node for node in transaction.list(Node)}
    room = TunnelRoom(transaction, account, proxies, chain.from_iterable(tunnels_of.values()))
    done: set[str] = set()
    for index, name in enumerate(chain(chosen, waiting)):
        if index >= len(chosen) and room.is_full:
            break
        done.add(name)
        proxy = proxies[name]
        routes = routes_of[proxy.name]
        slices = [s for service in proxy_services(proxy.name, routes) for s in slices_of[service]]
        stored = [tunnel for tunnel in tunnels_of[proxy.name] if not tunnel.deleting]
        wanted = wanted_tunnels(proxy, routes, slices)
        change = plan(within_room(wanted, stored, room.nodes(name)), stored)
        change = replace(change, create=change.create[: room.new])
        kept = _apply(transaction, proxy, change, stored)
        room.take(name, len({key_of(tunnel).workload for tunnel in kept}), len(change.create))
        left_out = {w.key for w in wanted} - {key_of(tunnel) for tunnel in kept}
        spec = proxy.spec.model_copy(update={"gue_tunnel_endpoints": tunnel_endpoints(kept, nodes)})
        workloads = workload_endpoints(proxy_services(proxy.name, routes), slices)
        unmapped = unmapped_cluster(proxy.status.unmapped_cluster, {w.cluster_id for w in workloads})
        status = proxy.status.model_copy(update={"unmapped_cluster": unmapped})
        planned = proxy.model_copy(update={"spec": spec, "status": status})
        unconnected = len({key.workload for key in left_out})
        transaction.update(with_unconnected(planned, unconnected, room.limit))
    return done


def delete_tunnel(transaction: Transaction, tunnel: Tunnel) -> None:
    """Take the tunnel from both ends; it stays until they have let go of it."""
    metadata = tunnel.metadata.model_copy(update={"deletion_timestamp": now()})
    transaction.update(tunnel.model_copy(update={"metadata": metadata}))


def _grouped(objects: Iterable[R], keys: Callable[[R], Iterable[str]]) -> defaultdict[str, list[R]]:
    found: defaultdict[str, list[R]] = defaultdict(list)
    for obj in objects:
        for key in keys(obj):
            found[key].append(obj)
    return found


def _apply(
    transaction: Transaction, proxy: GWProxy, change: TunnelPlan, stored: list[Tunnel]
) -> list[Tunnel]:
    after = {tunnel.name: tunnel for tunnel in stored}
    for tunnel in change.delete:
        delete_tunnel(transaction, tunnel)
        del after[tunnel.name]
    for tunnel in change.update:
        after[tunnel.name] = transaction.update(tunnel)
    for wanted in change.create:
        created = transaction.create(_new_tunnel(transaction.next_number("tunnel"), proxy, wanted))
        after[created.name] = created
    return list(after.values())


def _new_tunnel(number: int, proxy: GWProxy, wanted: WantedTunnel) -> Tunnel:
    return Tunnel(
        metadata=Metadata(name=str(number), namespace=proxy.account),
        spec=TunnelSpec(
            proxy=proxy.name,
            service=proxy.status.service,
            epic_node=wanted.key.epic_node,
            inside_address=wanted.inside_address,
            cluster_id=wanted.key.workload.cluster_id,
            node_name=wanted.key.workload.name,
            node_address=wanted.node_address,
            keys=(EpochKey(epoch=1, secret=SecretStr(secrets.token_hex(16))),),
            signing_epoch=1,
            signing_since=now(),
        ),
    )
