# SPDX-License-Identifier: Apache-2.0
"""Brings the stored tunnels of gateways to their plan: a bounded number in a transaction, the rest later.

What is left is in the account's backlog, in the store: whoever made it, and whatever ends in between, the
reconciler of lives goes on with it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from epic.model.backlog import TunnelBacklog, TunnelBacklogSpec
from epic.model.base import Metadata, now
from epic.model.keys import EpochKey
from epic.model.naming import GatewayId
from epic.model.resources import Tunnel, TunnelSpec
from epic.reconcile.tunnel_plans import GatewayPlan, Planner, with_tunnels_later
from epic.reconcile.world import World
from epic.store.interface import Transaction
from epic.tunnels import WantedTunnel

log = logging.getLogger(__name__)


@dataclass
class Budget:
    """How many tunnels and gateways a transaction may still write: all others who write wait for that long.

    `announcements` are gateways of which it may say that their tunnels come later.
    """

    left: int = 80
    announcements: int = 20

    def take(self, count: int) -> int:
        """As much of `count` as is left."""
        taken = min(count, self.left)
        self.left -= taken
        return taken


def replan(transaction: Transaction, world: World, account: str, names: Iterable[str]) -> None:
    """Make, change and delete the tunnels of these gateways; where that are many, the reconciler does it.

    No more tunnels are made than the account may have and nodes have room for: a condition of the gateway
    says what it is without, and it gets what becomes free. An instance has its tunnels until its node is told
    to drop it.
    """
    budget = Budget()
    if world.backlog(account):
        remember(transaction, world, account, names, budget)
    else:
        work_off(transaction, world, account, names, budget)


def work_off(
    transaction: Transaction, world: World, account: str, names: Iterable[str], budget: Budget
) -> bool:
    """Do what is left for the gateways of the account's backlog, then for these, then for who waits for room.

    Returns whether the budget was enough.
    """
    backlog = world.backlog(account)
    order = [*backlog, *sorted(set(names).difference(backlog))]
    waiting = sorted(world.waiting(account).difference(order))
    planner = Planner(transaction, world, account)
    for index, name in enumerate([*order, *waiting]):
        if index >= len(order) and planner.is_full:
            break
        if not budget.left or not _carry_out(transaction, world, planner.plan(name), budget):
            # Of those that wait for room none is forgotten without being in the backlog.
            _save_backlog(transaction, world, account, order[index:] or [name], budget)
            return False
    _save_backlog(transaction, world, account, [], budget)
    return True


def remember(
    transaction: Transaction, world: World, account: str, names: Iterable[str], budget: Budget
) -> None:
    """Leave the gateways to the reconciler."""
    backlog = world.backlog(account)
    order = [*backlog, *sorted(set(names).difference(backlog))]
    _save_backlog(transaction, world, account, order, budget)


def count_unconnected(transaction: Transaction, world: World, account: str) -> int:
    """How many workload nodes of the account are without tunnels when its backlog is done."""
    proxies = {name: world.proxies[GatewayId(account, name)] for name in world.waiting(account)}
    found = {name: proxy.status.unconnected for name, proxy in proxies.items()}
    if backlog := world.backlog(account):
        planner = Planner(transaction, world, account)
        found |= {name: planner.plan(name).unconnected for name in backlog}
    return sum(found.values())


def _carry_out(transaction: Transaction, world: World, plan: GatewayPlan, budget: Budget) -> bool:
    """Change tunnels as far as the budget goes; if it is enough for all, let the gateway show that."""
    gateway, change = plan.gateway, plan.change
    for tunnel in change.delete[: budget.take(len(change.delete))]:
        metadata = tunnel.metadata.model_copy(update={"deletion_timestamp": now()})
        # It stays until both ends have let go of it.
        world.note(transaction.update(tunnel.model_copy(update={"metadata": metadata})))
    for tunnel in change.update[: budget.take(len(change.update))]:
        world.note(transaction.update(tunnel))
    for wanted in change.create[: budget.take(len(change.create))]:
        number = transaction.next_number("tunnel")
        service = world.proxies[gateway].status.service
        world.note(transaction.create(_new_tunnel(number, gateway.account, service, wanted)))
    proxy = world.proxies.get(gateway)
    if proxy is None:
        return budget.left > 0
    if not budget.left:
        return False
    after = plan.shown(world, proxy)
    if after != proxy:
        budget.take(1)
        world.note(transaction.update(after))
        if after.status.crowded_out > proxy.status.crowded_out:
            nodes = ", ".join(sorted(instance.node for instance in after.status.instances))
            log.warning("gateway %s: no room for %d tunnels on %s", gateway, after.status.crowded_out, nodes)
    return True


def _save_backlog(
    transaction: Transaction, world: World, account: str, names: Sequence[str], budget: Budget
) -> None:
    for name in names:
        proxy = world.proxies.get(GatewayId(account, name))
        if proxy is None:
            continue
        pending = with_tunnels_later(world, proxy)
        if pending != proxy:
            if not budget.announcements:
                break
            budget.announcements -= 1
            world.note(transaction.update(pending))
    stored = transaction.find(TunnelBacklog, account, account)
    spec = TunnelBacklogSpec(gateways=tuple(names))
    if stored is None and names:
        metadata = Metadata(name=account, namespace=account)
        world.note(transaction.create(TunnelBacklog(metadata=metadata, spec=spec)))
    elif stored is not None and not names:
        transaction.delete(TunnelBacklog, account, account)
        world.drop(stored)
    elif stored is not None:
        world.note(transaction.update(stored.model_copy(update={"spec": spec})))


def _new_tunnel(number: int, account: str, service: int, wanted: WantedTunnel) -> Tunnel:
    return Tunnel(
        metadata=Metadata(name=str(number), namespace=account),
        spec=TunnelSpec(
            proxy=wanted.key.proxy,
            service=service,
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
